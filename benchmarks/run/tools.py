"""Programs that the benchmark needs beside Python: found, installed if we may, or named.

On Debian and its kin, as root, what is missing is installed with apt-get (`--no-install` forbids it). Elsewhere the command that
would install it is said, and every subject that needs it is reported as missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INSTALL_LIMIT_S: Final = 600.0
_SYSTEM_PROGRAMS: Final = "/usr/sbin:/sbin"
"""Where Debian keeps nginx, and where the PATH of a user who is not root does not lead."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A thing that is there or not, and the Debian packages that bring it."""

    name: str
    packages: tuple[str, ...]
    is_there: Callable[[], bool]
    why: str


def program(name: str) -> str | None:
    """Where a program is."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), _SYSTEM_PROGRAMS]))


def _is_program(name: str) -> Callable[[], bool]:
    return lambda: program(name) is not None


GO_PATH: Final = Path("/usr/share/gocode")
"""Where Debian's golang-github-valyala-fasthttp-dev lies."""


def _has_fasthttp() -> bool:
    return program("go") is not None and (GO_PATH / "src/github.com/valyala/fasthttp").is_dir()


def _has_libuv() -> bool:
    import ctypes.util  # noqa: PLC0415  (asked for once)

    return ctypes.util.find_library("uv") is not None


TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool("wrk", ("wrk",), _is_program("wrk"), "all HTTP load but WebSocket"),
        Tool(
            "fasthttp",
            ("golang-go", "golang-github-valyala-fasthttp-dev"),
            _has_fasthttp,
            "Go's fasthttp, the seed",
        ),
        Tool("nginx", ("nginx-light",), _is_program("nginx"), "nginx"),
        Tool("openssl", ("openssl",), _is_program("openssl"), "TLS"),
        Tool("libuv", ("libuv1",), _has_libuv, "socketify"),
        Tool("redis-server", ("redis-server",), _is_program("redis-server"), "Redis"),
    )
}


_SAYS_VERSION: Final[Mapping[str, tuple[str, ...]]] = {
    "wrk": ("-v",),
    "nginx": ("-v",),
    "openssl": ("version",),
    "redis-server": ("--version",),
}


def _run(words: list[str]) -> str:
    """Run a command to its end: "" or why it failed."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, env=environment
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "" if not done.returncode else ((done.stderr or done.stdout).strip() or "no word").splitlines()[-1]


def ensure(
    names: Iterable[str],
    *,
    may_install: bool,
    say: Callable[[str], None],
    tools: Mapping[str, Tool] = TOOLS,
    run: Callable[[list[str]], str] = _run,
) -> list[str]:
    """See to it that these tools are there: what is missing all the same, each with what to do about it.

    Installs with apt-get if `may_install`. Never raises for a tool that cannot be had.
    """
    wanted = [tools[name] for name in names]
    missing = [tool for tool in wanted if not tool.is_there()]
    if missing and may_install:
        packages = [package for tool in missing for package in tool.packages]
        say(f"installing {' '.join(packages)} (--no-install forbids it)")
        # A fresh machine has no lists of packages.
        why = run(["apt-get", "-qq", "update"])
        # One by one, so that one that is not there does not take the others along.
        for tool in missing:
            why = run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", *tool.packages]) or why
            if not tool.is_there():
                say(f"{tool.name} cannot be installed: {why or 'it is not found where it was installed'}")
        missing = [tool for tool in missing if not tool.is_there()]
    return [
        f"{tool.name} is not installed, so {tool.why} is not measured: apt-get install {' '.join(tool.packages)}"
        for tool in missing
    ]


def versions(names: Iterable[str]) -> list[str]:
    """Of those that are there and say it: "wrk 4.1.0"."""
    found = []
    for name in dict.fromkeys(names):
        words = _SAYS_VERSION.get(name, ())
        path = program(name)
        if words and path:
            done = subprocess.run([path, *words], check=False, capture_output=True, text=True, timeout=10)
            if number := re.search(r"\d+(\.\d+)+", done.stdout + done.stderr):
                found.append(f"{name} {number[0]}")
    return found


def may_install() -> bool:
    """Whether this is a machine where apt-get would be let to."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None
