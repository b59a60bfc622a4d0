"""The run-time directory: which folder is taken, which is not trusted, and what is found in it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.errors import AddressError
from prefork.net import runfolder
from prefork.net.runfolder import candidates, new_path, sockets


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a user's session; nothing of the machine's own is looked at."""
    monkeypatch.setattr(runfolder, "_SYSTEM", tmp_path / "run" / "prefork")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    for name in ("xdg", "tmp"):
        (tmp_path / name).mkdir(mode=0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "xdg")}  # type: ignore[return-value]


def dead_pid() -> int:
    """The pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as popen:
        popen.wait()
    return popen.pid


def test_systemds_comes_first(session: dict[str, str], tmp_path: Path) -> None:
    """Then the session's, the system's, and what there always is."""
    names = [str(x) for x in candidates({**session, "RUNTIME_DIRECTORY": "/run/shop:/run/other"})]
    assert names == [
        "/run/shop",
        f"{tmp_path}/xdg/prefork",
        f"{tmp_path}/run/prefork",
        str(tmp_path / "tmp" / f"prefork-{os.geteuid()}"),
    ]


def test_a_path_is_made_for_this_master(session: dict[str, str], tmp_path: Path) -> None:
    """In a folder of its own, that nobody else may look into."""
    assert new_path(session) == f"{tmp_path}/xdg/prefork/{os.getpid()}.sock"
    assert (tmp_path / "xdg" / "prefork").stat().st_mode & 0o777 == 0o700


def test_without_a_session_the_temporary_folder_serves(session: dict[str, str], tmp_path: Path) -> None:
    """The system's is not there."""
    folder = tmp_path / "tmp" / f"prefork-{os.geteuid()}"
    assert new_path({}) == str(folder / f"{os.getpid()}.sock")


@pytest.mark.parametrize("trouble", ["writable", "link", "file"])
def test_a_folder_that_others_could_have_made_is_not_taken(
    session: dict[str, str], tmp_path: Path, trouble: str
) -> None:
    """The next one is; and where there is none, it is told which were tried."""
    folders = [tmp_path / "xdg" / "prefork", tmp_path / "tmp" / f"prefork-{os.geteuid()}"]
    for folder in folders:
        if trouble == "writable":
            folder.mkdir()
            folder.chmod(0o777)
        elif trouble == "link":
            folder.symlink_to(tmp_path)
        else:
            folder.touch()
    with pytest.raises(AddressError, match=r"no directory for a control socket among .*--control PATH"):
        new_path(session)


def test_what_dead_masters_left_is_cleared_away(session: dict[str, str], tmp_path: Path) -> None:
    """Not what answers, whoever's pid it is named for (a new master has taken it over), and not what is no socket's name."""
    folder = Path(new_path(session)).parent
    first, second = dead_pid(), dead_pid()
    assert first != second
    dead, taken_over, other = folder / f"{first}.sock", folder / f"{second}.sock", folder / "x.sock"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(dead))
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(taken_over))
        live.listen()
        other.touch()
        new_path(session)
        assert sorted(folder.iterdir()) == sorted([taken_over, other])
        assert sockets(session) == [taken_over]


def test_nobody_is_found_in_a_folder_of_others(session: dict[str, str], tmp_path: Path) -> None:
    """Who could put a socket there could answer in a master's place."""
    folder = Path(new_path(session)).parent
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(folder / "1.sock"))
        live.listen()
        assert len(sockets(session)) == 1
        folder.chmod(0o777)
        assert sockets(session) == []
