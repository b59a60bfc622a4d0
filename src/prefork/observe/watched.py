"""Which changed files are the application's code: pure, but for looks at virtual environments and new folders.

A glob without a slash is about names ("*.py"); an exclude without one is about the name of any folder on the way, too
("build"). A glob with a slash is about the path below the watched directory ("templates/*.html"), or, where it begins with
one, about the whole path.

What nobody edits is never code, whatever includes say: hidden folders (.git, .venv), caches, node_modules, site-packages, and
virtual environments under any name, which are known by their pyvenv.cfg (PEP 405). So are the drafts of editors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Final

_NEVER: Final = frozenset({"__pycache__", "node_modules", "site-packages"})
_DRAFTS: Final = ("*.py[cod]", "*.sw?", "*~", ".#*", "#*#", "*.___jb_*___", "4913")
"""Compiled; Vim's swap file, its back-up and its probe; Emacs' lock and autosave; JetBrains' safe write."""


class Watched:
    """The rules of one fleet. Paths are absolute."""

    def __init__(self, roots: Sequence[str], includes: Sequence[str], excludes: Sequence[str]) -> None:
        self._roots = [PurePath(root) for root in roots]
        self._includes = tuple(includes)
        self._excludes = tuple(excludes)
        self._environments: dict[PurePath, bool] = {}

    def is_code(self, path: str) -> bool:
        """Whether a change of `path` is one of the application's."""
        whole = PurePath(path)
        root = self._root_of(whole)
        if root is None:
            return False
        below = whole.relative_to(root)
        if not any(_is_meant(glob, below, whole) for glob in self._includes):
            return False
        if any(fnmatchcase(whole.name, glob) for glob in _DRAFTS) or self._is_foreign(root, below):
            return False
        return not any(_is_excluded(glob, below, whole) for glob in self._excludes)

    def holds_code(self, folder: str) -> bool:
        """Whether there is code below a folder that is new: what was written into it before it was watched is not told."""
        for place, folders, names in os.walk(folder):
            folders[:] = [x for x in folders if x not in _NEVER and not x.startswith(".")]
            if any(self.is_code(f"{place}/{name}") for name in names):
                return True
        return False

    def shown(self, path: str) -> str:
        """The path as people know it: below its directory."""
        root = self._root_of(PurePath(path))
        return path if root is None else str(PurePath(path).relative_to(root))

    def _root_of(self, path: PurePath) -> PurePath | None:
        """The innermost watched directory: what is named is watched, though it lies in a hidden folder."""
        around = [root for root in self._roots if path.is_relative_to(root)]
        return max(around, key=lambda root: len(root.parts), default=None)

    def _is_foreign(self, root: PurePath, below: PurePath) -> bool:
        folder = root
        for name in below.parts[:-1]:
            folder /= name
            if name in _NEVER or name.startswith(".") or self._is_environment(folder):
                return True
        return False

    def _is_environment(self, folder: PurePath) -> bool:
        """Whether it is a virtual environment. Looked up once, for it is asked at every change below it."""
        if folder not in self._environments:
            self._environments[folder] = (Path(folder) / "pyvenv.cfg").exists()
        return self._environments[folder]


def _is_meant(glob: str, below: PurePath, whole: PurePath) -> bool:
    if "/" not in glob:
        return fnmatchcase(whole.name, glob)
    return fnmatchcase(str(whole if glob.startswith("/") else below), glob)


def _is_excluded(glob: str, below: PurePath, whole: PurePath) -> bool:
    if "/" not in glob:
        return any(fnmatchcase(name, glob) for name in below.parts)
    return _is_meant(glob.rstrip("/") + "/*", below, whole) or _is_meant(glob, below, whole)
