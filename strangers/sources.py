"""Strangers' packages: fetched by name and version, checked against the hash written here, unpacked under build/.

PyPI by pip, Debian by apt-get; each keeps what it has fetched, so that the second run needs no network. Nothing is
installed, and nothing of it is run here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

STORE: Final = Path(__file__).parents[1] / "build" / "strangers"
_LIMIT_S: Final = 180


class NotToBeHadError(Exception):
    """A package cannot be fetched here, or is not the one that was meant. Its words say which and why."""


@dataclass(frozen=True)
class Source:
    """A package: on PyPI its source distribution, of Debian a package that carries the files, or the upstream's sources."""

    name: str
    version: str
    file: str
    sha256: str
    registry: Literal["PyPI", "Debian", "Debian's sources"] = "PyPI"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def folder(self, store: Path = STORE) -> Path:
        """Its files. Fetched and unpacked if they are not there yet; raises NotToBeHadError."""
        unpacked = store / "unpacked" / f"{self.name}-{self.version}"
        if not unpacked.is_dir():
            archive = store / "fetched" / self.file
            if not archive.is_file():
                archive.parent.mkdir(parents=True, exist_ok=True)
                fetch = {"PyPI": self._fetch_pypi, "Debian": self._fetch_debian}
                fetch.get(self.registry, self._fetch_debian_sources)(archive.parent)
            self.check(archive)
            self._unpack(archive, unpacked)
        return unpacked

    def check(self, archive: Path) -> None:
        """Raises NotToBeHadError unless it is the file that was meant."""
        if not archive.is_file():
            beside = ", ".join(sorted(each.name for each in archive.parent.iterdir())) or "nothing"
            raise NotToBeHadError(f"{self}: {self.file} was not fetched, but {beside}")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != self.sha256:
            raise NotToBeHadError(f"{self}: {archive} has the hash {found}, not {self.sha256}: remove it")

    def _fetch_pypi(self, folder: Path) -> None:
        words = ["-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        words += ["--no-binary", self.name, "--dest", str(folder), f"{self.name}=={self.version}"]
        self._run([sys.executable, *words], folder)

    def _fetch_debian(self, folder: Path) -> None:
        self._run(["apt-get", "--quiet", "download", f"{self.name}={self.version}"], folder)

    def _fetch_debian_sources(self, folder: Path) -> None:
        """By lists of our own: few machines have those of the sources. They name the mirrors that the machine has."""
        lists = folder / "apt"
        (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (lists / "own.sources").write_text(
            "\n\n".join(
                path.read_text().replace("Types: deb\n", "Types: deb-src\n")
                for path in Path("/etc/apt/sources.list.d").glob("debian.sources")
            )
        )
        command = ["apt-get", "--quiet", "-o", f"Dir::Etc::sourcelist={lists / 'own.sources'}"]
        command += ["-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={lists / 'lists'}"]
        # Its own user may not enter the folder of a checkout; signatures are checked all the same.
        command += ["-o", "APT::Sandbox::User=root"]
        self._run([*command, "update"], folder)
        self._run([*command, "source", "--download-only", f"{self.name}={self.version}"], folder)

    def _run(self, command: list[str], folder: Path) -> None:
        env = {**os.environ, "PIP_NO_INPUT": "1", "LC_ALL": "C"}
        try:
            subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, timeout=_LIMIT_S)
        except subprocess.CalledProcessError as error:
            words = [
                line
                for line in error.stderr.decode(errors="replace").splitlines()
                if "rror" in line or "E:" in line
            ]
            raise NotToBeHadError(f"{self} cannot be fetched: {(words or ['no word why'])[0]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotToBeHadError(f"{self} cannot be fetched: {error}") from error

    def _unpack(self, archive: Path, unpacked: Path) -> None:
        beside = unpacked.with_name(f".{unpacked.name}.{os.getpid()}")
        beside.mkdir(parents=True)
        if archive.suffix == ".deb":
            self._run(["dpkg-deb", "--extract", str(archive), str(beside)], beside)
            root = beside
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(beside, filter="data")
            (root,) = beside.iterdir()
        root.rename(unpacked)
        if root != beside:
            beside.rmdir()


def hashes(archives: Iterable[Path]) -> list[str]:
    """For whoever pins a new version: `python -m strangers.sources FILE...`."""
    return [f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}" for each in archives]


if __name__ == "__main__":
    print("\n".join(hashes(map(Path, sys.argv[1:]))))  # noqa: T201  (a command)
