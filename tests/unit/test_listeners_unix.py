from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork.net.address import Address
from prefork.net.listeners import UnixOptions
from prefork.net.unixpath import OwnedPath, bind_path
from tests.unit.listening import (
    NOBODY,
    Open,
    as_nobody,
    linux_only,
    mode_of,
    refusal,
    root_only,
)

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


class TestUnix:
    def test_it_serves_and_is_removed_at_the_end(
        self, opened: Open, connect: Callable[..., object], tmp_path: Path
    ) -> None:
        """A client connects, mode follows the umask, and after close the file is gone."""
        path = tmp_path / "app.sock"
        before = os.umask(0o027)
        try:
            listeners = opened(f"unix:{path}")
        finally:
            os.umask(before)
        connect(listeners.for_slot(0)[0])
        assert mode_of(path) == 0o750
        assert listeners.addresses == (Address("unix", path=str(path)),)
        listeners.close()
        assert not path.exists()

    @pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
    def test_the_mode_is_the_one_asked_for(self, opened: Open, tmp_path: Path, mode: int) -> None:
        """Whatever the umask is."""
        path = tmp_path / "app.sock"
        opened(f"unix:{path}", unix=UnixOptions(mode=mode))
        assert mode_of(path) == mode

    def test_it_is_never_open_wider_than_asked(self, tmp_path: Path) -> None:
        """At the moment of the bind nobody may connect, and nobody can before it listens."""
        path = tmp_path / "app.sock"
        seen: list[int] = []

        class Watched(socket.socket):
            def bind(self, address: object) -> None:
                super().bind(address)  # type: ignore[arg-type]
                seen.append(mode_of(path))

        with Watched(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            umask = os.umask(0)
            try:
                bind_path(sock, str(path), UnixOptions(mode=0o660))
                assert os.umask(0) == 0
            finally:
                os.umask(umask)
            assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert seen == [0]
        assert mode_of(path) == 0o660

    @root_only
    @pytest.mark.parametrize(
        ("user", "group", "expected"),
        [
            (NOBODY, None, (NOBODY, 0)),
            (None, str(NOBODY), (0, NOBODY)),
            ("root", "root", (0, 0)),
            (str(NOBODY), 7, (NOBODY, 7)),
        ],
    )
    def test_the_owner_is_the_one_asked_for(
        self,
        opened: Open,
        tmp_path: Path,
        user: str | int | None,
        group: str | int | None,
        expected: tuple[int, int],
    ) -> None:
        """Names and numeric ids, one or both."""
        path = tmp_path / "app.sock"
        opened(f"unix:{path}", unix=UnixOptions(user=user, group=group))
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == expected

    @pytest.mark.parametrize(
        ("options", "advice"),
        [
            (UnixOptions(user="no-such-user"), "no user 'no-such-user'"),
            (UnixOptions(group="no-such-group"), "no group 'no-such-group'"),
            (UnixOptions(user=-7), "user id -7 does not exist"),
            (UnixOptions(group=str(2**32)), "group id 4294967296 does not exist"),
        ],
    )
    def test_an_unknown_owner_is_refused(
        self, opened: Open, tmp_path: Path, options: UnixOptions, advice: str
    ) -> None:
        """Nothing is bound for a user that does not exist."""
        assert advice in str(refusal(lambda: opened(f"unix:{tmp_path}/app.sock", unix=options)))
        assert list(tmp_path.iterdir()) == []

    def test_giving_away_without_the_right_is_refused(self, opened: Open, public_directory: Path) -> None:
        """Only root may make root the owner; the file is removed again."""
        with as_nobody():
            error = refusal(lambda: opened(f"unix:{public_directory}/app.sock", unix=UnixOptions(user=0)))
        assert "cannot set mode and owner" in str(error)
        assert list(public_directory.iterdir()) == []

    def test_a_live_socket_that_may_not_be_asked_is_refused(
        self, opened: Open, public_directory: Path
    ) -> None:
        """No permission to connect: it cannot be told from a stale one, so it is left alone."""
        path = public_directory / "app.sock"
        opened(f"unix:{path}", unix=UnixOptions(mode=0))
        with as_nobody():
            error = refusal(lambda: opened(f"unix:{path}"))
        assert "cannot tell whether" in str(error)

    def test_a_stale_socket_is_replaced(
        self, opened: Open, connect: Callable[..., object], tmp_path: Path
    ) -> None:
        """A file that a killed master left behind is in nobody's way."""
        path = tmp_path / "app.sock"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
            killed.listen()
        connect(opened(f"unix:{path}").for_slot(0)[0])

    def test_a_live_socket_is_refused(self, opened: Open, tmp_path: Path) -> None:
        """Someone answers there, or would if their queue were not full: it is theirs."""
        path = tmp_path / "app.sock"
        with contextlib.ExitStack() as stack:
            holder = stack.enter_context(socket.socket(socket.AF_UNIX))
            holder.bind(str(path))
            holder.listen(0)
            assert "is in use by a running program" in str(refusal(lambda: opened(f"unix:{path}")))
            with contextlib.suppress(BlockingIOError):  # until the queue is full
                while True:
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect(str(path))
            assert "is in use by a running program" in str(refusal(lambda: opened(f"unix:{path}")))
        assert path.is_socket()

    def test_a_live_socket_of_another_type_is_refused(self, opened: Open, tmp_path: Path) -> None:
        """A datagram socket, as syslog's, is not ours to replace."""
        path = tmp_path / "log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
            holder.bind(str(path))
            assert "is in use" in str(refusal(lambda: opened(f"unix:{path}")))

    @pytest.mark.parametrize(
        ("make", "what"),
        [
            (Path.touch, "a regular file"),
            (Path.mkdir, "a directory"),
            (lambda path: path.symlink_to("elsewhere"), "a symbolic link"),
            (os.mkfifo, "a special file"),
        ],
    )
    def test_what_is_no_socket_is_left_alone(
        self, opened: Open, tmp_path: Path, make: Callable[[Path], None], what: str
    ) -> None:
        """No file but a stale socket is ever removed."""
        path = tmp_path / "precious"
        make(path)
        assert f"is not a socket but {what}" in str(refusal(lambda: opened(f"unix:{path}")))
        assert path.lstat()

    def test_a_directory_that_is_not_there(self, opened: Open, tmp_path: Path) -> None:
        """The directory is named, for that is what has to be made."""
        error = refusal(lambda: opened(f"unix:{tmp_path}/missing/app.sock"))
        assert f"{tmp_path}/missing is not a directory; make it first" in str(error)
        (tmp_path / "file").touch()
        assert "is not a directory" in str(refusal(lambda: opened(f"unix:{tmp_path}/file/app.sock")))

    def test_a_directory_without_permission(self, opened: Open, public_directory: Path) -> None:
        """Who may not write there is told so."""
        public_directory.chmod(0o555)
        with as_nobody():
            error = refusal(lambda: opened(f"unix:{public_directory}/app.sock"))
        assert f"no permission to write in {public_directory}" in str(error)

    def test_somebody_elses_file_is_not_removed(self, opened: Open, tmp_path: Path) -> None:
        """If the path was replaced meanwhile, the new file stays."""
        path = tmp_path / "app.sock"
        listeners = opened(f"unix:{path}")
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
            listeners.close()
            assert path.is_socket()

    def test_a_path_that_is_gone_does_not_stop_the_stop(self, opened: Open, tmp_path: Path) -> None:
        """Someone removed the file: close has nothing left to do for it."""
        path = tmp_path / "app.sock"
        listeners = opened(f"unix:{path}")
        path.unlink()
        listeners.close()

    def test_a_relative_path_is_removed_after_a_change_of_directory(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The program may chdir; its socket is where it was bound."""
        monkeypatch.chdir(tmp_path)
        listeners = opened("unix:app.sock")
        monkeypatch.chdir("/")
        listeners.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_forked_child_removes_nothing(self, opened: Open, tmp_path: Path) -> None:
        """A child that closes its copies leaves the file to the master."""
        path = tmp_path / "app.sock"
        listeners = opened(f"unix:{path}")
        child = os.fork()
        if child == 0:
            try:
                listeners.close()
            finally:
                os._exit(0 if path.is_socket() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert path.is_socket()

    @linux_only
    def test_an_abstract_name_has_no_file(self, opened: Open, connect: Callable[..., object]) -> None:
        """It serves, it is refused while in use, and it goes with the socket."""
        name = "unix:@" + os.urandom(8).hex()
        listeners = opened(name)
        connect(listeners.for_slot(0)[0])
        assert str(listeners.addresses[0]) == name
        assert f"{name} is in use" in str(refusal(lambda: opened(name)))
        listeners.close()
        opened(name)


def test_an_owned_path_belongs_to_the_process_that_claimed_it(tmp_path: Path) -> None:
    """Another pid's claim removes nothing."""
    path = tmp_path / "file"
    path.touch()
    claim = OwnedPath.claim(str(path))
    OwnedPath(claim.path, claim.device, claim.inode, claim.pid + 1).remove()
    assert path.exists()
    claim.remove()
    assert not path.exists()
