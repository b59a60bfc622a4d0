from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from prefork.errors import AddressError
from prefork.net import sockets
from prefork.net.address import Address, parse_address
from prefork.net.listeners import ListenerSet, UnixOptions
from prefork.net.unixpath import OwnedPath, bind_path

LOOPBACK = "127.0.0.1:0"
CONNECTIONS = 60
NOBODY = 65534

Open = Callable[..., ListenerSet]

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has it")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6_only = pytest.mark.skipif(not has_ipv6(), reason="IPv6 is off here")


def descriptors() -> list[str]:
    return sorted(os.listdir("/dev/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    """Whatever a test does, and whatever is refused in it, no descriptor is left open."""
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.fixture
def stack(no_descriptor_leaks: None) -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def opened(stack: contextlib.ExitStack) -> Open:
    """`opened("127.0.0.1:0", …, reuseport=True)`: a set of these addresses, closed after the test."""

    def open_set(
        *texts: str,
        reuseport: bool = False,
        slots: int = 3,
        backlog: int = 1024,
        network: str | None = None,
        unix: UnixOptions = UnixOptions(),  # noqa: B008 - frozen
        inherited: Mapping[str, Sequence[int]] | None = None,
    ) -> ListenerSet:
        addresses = [parse_address(text, network) for text in texts]
        made = ListenerSet.open(
            addresses, reuseport=reuseport, slots=slots, backlog=backlog, unix=unix, inherited=inherited or {}
        )
        stack.callback(made.close)
        return made

    return open_set


@pytest.fixture
def connect(stack: contextlib.ExitStack) -> Callable[..., list[socket.socket]]:
    """`connect(listener, 60)`: that many clients of the address that `listener` is bound to."""

    def connect_clients(listener: socket.socket, count: int = 1) -> list[socket.socket]:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket(listener.family))
            client.settimeout(10)
            client.connect(listener.getsockname())
            clients.append(client)
        return clients

    return connect_clients


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that an unprivileged user may write to; `tmp_path` is below a private one."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's privileges, where the suite runs as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def answer_all(listener: socket.socket, count: int) -> None:
    for _ in range(count):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"served")


def refusal(open_it: Callable[[], object]) -> AddressError:
    """The one-line error that `open_it` is refused with."""
    with pytest.raises(AddressError) as caught:
        open_it()
    assert "\n" not in str(caught.value)
    return caught.value


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class TestShared:
    def test_every_slot_gets_the_same_socket(self, opened: Open) -> None:
        """Without reuseport there is one socket for each address, in the order of the addresses."""
        listeners = opened(LOOPBACK, "unix:@" + os.urandom(8).hex(), slots=2)
        assert listeners.for_slot(0) == listeners.for_slot(1)
        assert [sock.family for sock in listeners.for_slot(0)] == [socket.AF_INET, socket.AF_UNIX]
        assert listeners.slots_open == 2
        assert listeners.for_slot(2) == listeners.for_slot(0)
        assert listeners.slots_open == 3

    def test_a_socket_is_private_and_quick(self, opened: Open, connect: Callable[..., object]) -> None:
        """Not inherited by programs, SO_REUSEADDR, and accepted connections have TCP_NODELAY already."""
        (listener,) = opened(LOOPBACK).for_slot(0)
        assert not listener.get_inheritable()
        assert listener.getblocking()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        connect(listener)
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def test_the_real_port_is_told(self, opened: Open) -> None:
        """Port 0 is replaced by what the kernel chose; the text as configured stays the key."""
        listeners = opened(LOOPBACK)
        (address,) = listeners.addresses
        assert address == Address("tcp4", host="127.0.0.1", port=listeners.for_slot(0)[0].getsockname()[1])
        assert list(listeners.handover()) == [LOOPBACK]

    def test_a_name_is_resolved_and_shown_as_a_name(self, opened: Open) -> None:
        """The name localhost is bound on loopback, IPv4 first, and people see the name they wrote."""
        listeners = opened("localhost:0")
        assert listeners.for_slot(0)[0].getsockname()[0] == "127.0.0.1"
        assert listeners.addresses[0].host == "localhost"

    @linux_only
    def test_a_shared_queue_counts_for_every_slot(self, opened: Open, connect: Callable[..., object]) -> None:
        """The depth is that of the one queue there is; waiting Unix connections are not seen."""
        listeners = opened(LOOPBACK, "unix:@" + os.urandom(8).hex())
        for listener in listeners.for_slot(0):
            connect(listener, 4)
        assert [listeners.queue_depth(slot) for slot in range(3)] == [4, 4, 4]

    def test_slots_are_counted_alike_without_sockets_of_their_own(self, opened: Open) -> None:
        """Steering is a no-op, and a slot is closed as under reuseport, but no socket goes."""
        listeners = opened(LOOPBACK, slots=2)
        listeners.steer_below(1)
        listeners.close_slot(1)
        assert listeners.slots_open == 1
        assert listeners.for_slot(0)[0].fileno() >= 0

    def test_closing_twice_is_fine(self, opened: Open) -> None:
        """After close nobody listens there, and a second close does nothing."""
        listeners = opened(LOOPBACK)
        (listener,) = listeners.for_slot(0)
        place = listener.getsockname()
        listeners.close()
        listeners.close()
        assert listener.fileno() == -1
        assert repr(listeners) == "<ListenerSet closed: 0 slots>"
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(place)

    def test_slots_and_backlog_must_be_positive(self) -> None:
        """A number that cannot be meant is the caller's defect."""
        for slots, backlog in ((0, 1), (1, 0)):
            with pytest.raises(ValueError, match="1 or more"):
                ListenerSet.open([Address("fd", fd=0)], reuseport=False, slots=slots, backlog=backlog)

    @linux_only
    def test_a_backlog_above_the_kernels_limit_is_told(self, opened: Open) -> None:
        """The kernel cuts it silently; the master can log that."""
        assert opened(LOOPBACK, backlog=1).warnings == ()
        limit = sockets.backlog_limit()
        assert limit is not None
        (warning,) = opened(LOOPBACK, backlog=limit + 1).warnings
        assert f"backlog {limit + 1} is cut to {limit}" in warning


@ipv6_only
class TestFamilies:
    def test_tcp_takes_both_families(self, opened: Open) -> None:
        """Under network tcp, ":0" is one socket that IPv4 and IPv6 clients both reach."""
        port = opened(":0", network="tcp").addresses[0].port
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        socket.create_connection(("::1", port), timeout=10).close()

    @pytest.mark.parametrize("reuseport", [False, True])
    def test_tcp6_takes_ipv6_alone(self, opened: Open, reuseport: bool) -> None:  # noqa: FBT001
        """Under network tcp6, ":0" refuses IPv4, and leaves the port free for a tcp4 listener."""
        port = opened(":0", network="tcp6", reuseport=reuseport).addresses[0].port
        socket.create_connection(("::1", port), timeout=10).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        opened(f":{port}", network="tcp4", reuseport=reuseport)

    def test_tcp4_does_not_take_ipv6(self, opened: Open) -> None:
        """The default network is IPv4 only."""
        port = opened(":0").addresses[0].port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("::1", port), timeout=10)


@pytest.mark.parametrize("trouble", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_tcp_falls_back_where_ipv6_is_off(
    opened: Open, monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    """Without IPv6, network tcp is IPv4 on every interface, in every slot, and says so."""
    bind = sockets._bind

    def bind_ipv4_only(place: sockets.Place, *, join: bool) -> socket.socket:
        if place.family == socket.AF_INET6:
            raise OSError(trouble, os.strerror(trouble))
        return bind(place, join=join)

    monkeypatch.setattr(sockets, "_bind", bind_ipv4_only)
    listeners = opened(":0", network="tcp", reuseport=True)
    assert listeners.addresses[0].url(tls=False).startswith("http://0.0.0.0:")
    if trouble == errno.EAFNOSUPPORT:
        message = str(refusal(lambda: opened("[::1]:0")))
        assert "IPv6 is off" in message


@linux_only
class TestPerSlot:
    def test_each_slot_has_its_own_socket_on_one_port(self, opened: Open) -> None:
        """Under reuseport TCP addresses have a socket for each slot, Unix ones share theirs."""
        listeners = opened(LOOPBACK, "unix:@" + os.urandom(8).hex(), "127.0.0.2:0", reuseport=True)
        slots = [listeners.for_slot(slot) for slot in range(3)]
        for nth, distinct in ((0, 3), (1, 1), (2, 3)):
            assert len({sock[nth].fileno() for sock in slots}) == distinct
            assert len({sock[nth].getsockname() for sock in slots}) == 1

    def test_the_next_slot_opens_on_demand(self, opened: Open, connect: Callable[..., object]) -> None:
        """A slot past the last is opened when asked for, listens at once, and gets connections."""
        listeners = opened(LOOPBACK, reuseport=True, slots=1)
        with pytest.raises(ValueError, match="slot 2 is not open"):
            listeners.for_slot(2)
        with pytest.raises(ValueError, match="slot -1 is not open"):
            listeners.for_slot(-1)
        listeners.for_slot(1)
        assert listeners.slots_open == 2
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert min(listeners.queue_depth(slot) for slot in range(2)) > 0

    def test_scaling_down_resets_nobody(
        self, opened: Open, connect: Callable[..., list[socket.socket]]
    ) -> None:
        """Steer away, drain, close the last slot: every client that ever connected is answered."""
        listeners = opened(LOOPBACK, reuseport=True)
        (first,), (last,) = listeners.for_slot(0), listeners.for_slot(2)
        clients = connect(first, CONNECTIONS)
        listeners.steer_below(2)
        assert repr(listeners).endswith("3 slots, steered below 2>")
        waiting = listeners.queue_depth(2)
        assert waiting > 0
        clients += connect(first, CONNECTIONS)
        assert listeners.queue_depth(2) == waiting
        answer_all(last, waiting)
        listeners.close_slot(2)
        assert repr(listeners).endswith("2 slots>")
        clients += connect(first, CONNECTIONS)
        for slot in range(2):
            answer_all(listeners.for_slot(slot)[0], listeners.queue_depth(slot))
        assert [client.recv(16) for client in clients] == [b"served"] * (3 * CONNECTIONS)

    def test_a_slot_that_comes_back_gets_connections(
        self, opened: Open, connect: Callable[..., object]
    ) -> None:
        """After scaling down and up again the kernel's hash reaches every slot."""
        listeners = opened(LOOPBACK, reuseport=True)
        listeners.steer_below(2)
        listeners.close_slot(2)
        listeners.for_slot(2)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert min(listeners.queue_depth(slot) for slot in range(3)) > 0

    def test_steering_can_be_called_off(self, opened: Open, connect: Callable[..., object]) -> None:
        """Steering below all slots is the hash again: the scale-down was taken back."""
        listeners = opened(LOOPBACK, reuseport=True)
        listeners.steer_below(1)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert [listeners.queue_depth(slot) for slot in range(3)] == [CONNECTIONS, 0, 0]
        listeners.steer_below(3)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert min(listeners.queue_depth(slot) for slot in range(3)) > 0

    def test_steering_holds_while_several_slots_go(
        self, opened: Open, connect: Callable[..., object]
    ) -> None:
        """From four slots to two: the third gets nothing while the fourth is closed first."""
        listeners = opened(LOOPBACK, reuseport=True, slots=4)
        listeners.steer_below(2)
        listeners.close_slot(3)
        connect(listeners.for_slot(0)[0], CONNECTIONS)
        assert listeners.queue_depth(2) == 0

    def test_only_the_last_slot_may_be_closed(self, opened: Open) -> None:
        """The middle would break the steering, and the first must outlive every worker."""
        listeners = opened(LOOPBACK, reuseport=True)
        for slot in (0, 1, 3):
            with pytest.raises(ValueError, match="only the last may be"):
                listeners.close_slot(slot)
        with pytest.raises(ValueError, match="cannot be closed"):
            opened(LOOPBACK, slots=1).close_slot(0)

    @pytest.mark.parametrize("count", [0, 4, -1])
    def test_connections_are_steered_to_open_slots_only(self, opened: Open, count: int) -> None:
        """A count that leaves no slot, or means one that is not there, is a defect of the caller."""
        listeners = opened(LOOPBACK, reuseport=True)
        with pytest.raises(ValueError, match="from 1 to 3"):
            listeners.steer_below(count)
        with pytest.raises(ValueError, match="not open"):
            listeners.queue_depth(3)

    def test_a_strangers_port_is_not_shared(self, opened: Open) -> None:
        """SO_REUSEPORT would let a second master in silently; it is told that the port is in use."""
        port = opened(LOOPBACK, reuseport=True).addresses[0].port
        error = refusal(lambda: opened(f"127.0.0.1:{port}", reuseport=True))
        assert f"127.0.0.1:{port} is in use" in str(error)

    def test_a_slot_that_cannot_be_opened_changes_nothing(
        self, opened: Open, stack: contextlib.ExitStack
    ) -> None:
        """With one descriptor left and two addresses, the slot is refused whole, and can be had later."""
        listeners = opened(LOOPBACK, "127.0.0.2:0", reuseport=True, slots=1)
        before = listeners.handover()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        filler: list[int] = []
        highest = max(int(fd) for fd in descriptors())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
        try:
            with contextlib.suppress(OSError):  # until none is left
                while True:
                    filler.append(os.dup(0))
            os.close(filler.pop())
            error = refusal(lambda: listeners.for_slot(1))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in filler:
                os.close(fd)
        assert "too many open files" in str(error)
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == errno.EMFILE
        assert listeners.handover() == before
        assert len(listeners.for_slot(1)) == 2


class TestRefused:
    @pytest.mark.parametrize("reuseport", [False, True])
    def test_a_port_in_use(self, opened: Open, reuseport: bool) -> None:  # noqa: FBT001
        """Someone listens there: the error names the port and how to find who, and closes the rest."""
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            before = descriptors()
            error = refusal(lambda: opened("127.0.0.2:0", f"127.0.0.1:{port}", reuseport=reuseport))
            assert descriptors() == before
        assert f"127.0.0.1:{port} is in use: stop the program" in str(error)
        assert isinstance(error.__cause__, OSError)

    @ipv6_only
    def test_both_families_on_one_port(self, opened: Open) -> None:
        """[::] takes IPv4 too; who wants 0.0.0.0 beside it is told how."""
        port = opened(":0").addresses[0].port
        assert f"tcp6://[::]:{port} for IPv6 alone" in str(refusal(lambda: opened(f"[::]:{port}")))
        opened(f"tcp6://[::]:{port}")

    @linux_only
    def test_a_privileged_port(self, opened: Open) -> None:
        """Port 80 without the right to it: the error says what gives it."""
        first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
        if first_free <= 80:
            pytest.skip("everyone may bind port 80 here")
        with as_nobody():
            error = refusal(lambda: opened("127.0.0.1:80"))
        assert "no permission to bind 127.0.0.1:80: port 80 needs root or CAP_NET_BIND_SERVICE" in str(error)

    def test_an_address_of_another_machine(self, opened: Open) -> None:
        """192.0.2.1 is for documentation (RFC 5737), so nobody has it."""
        assert "no interface of this machine has 192.0.2.1" in str(refusal(lambda: opened("192.0.2.1:8080")))

    def test_an_unknown_host(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        """The resolver's refusal is passed on with advice; a label that no name may have, too."""

        def refuse(*args: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        error = refusal(lambda: opened("nowhere.invalid:80"))
        assert "cannot find host 'nowhere.invalid'" in str(error)
        assert "Name or service not known" in str(error)
        assert isinstance(error.__cause__, socket.gaierror)
        monkeypatch.undo()
        assert "cannot find host" in str(refusal(lambda: opened("x" * 70 + ":80")))

    def test_no_address_or_the_same_twice(self, opened: Open) -> None:
        """Nothing to listen on, and two addresses with one key, are mistakes to be told."""
        assert "no address to listen on" in str(refusal(opened))
        assert "127.0.0.1:0 is given twice" in str(refusal(lambda: opened(LOOPBACK, "127.0.0.1:00")))


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


class TestDescriptors:
    def test_a_listening_socket_is_adopted(self, opened: Open, connect: Callable[..., object]) -> None:
        """fd://N is served as it is, shared under reuseport too, and shown by where it is bound."""
        donor = socket.create_server(("127.0.0.1", 0))
        port = donor.getsockname()[1]
        os.set_inheritable(donor.fileno(), True)
        listeners = opened(f"fd://{donor.fileno()}", reuseport=True)
        fd = donor.detach()
        (listener,) = listeners.for_slot(0)
        assert listener is listeners.for_slot(2)[0]
        assert not listener.get_inheritable()
        connect(listener)
        assert str(listeners.addresses[0]) == f"fd://{fd}"
        assert listeners.addresses[0].url(tls=False) == f"http://127.0.0.1:{port}"
        assert listeners.handover() == {f"fd://{fd}": [fd]}

    def test_a_unix_socket_is_adopted_and_its_path_left(self, opened: Open, tmp_path: Path) -> None:
        """Who bound the path removes it: systemd, not we."""
        path = tmp_path / "app.sock"
        donor = socket.socket(socket.AF_UNIX)
        donor.bind(str(path))
        donor.listen()
        listeners = opened(f"fd://{donor.detach()}")
        assert listeners.addresses[0].url(tls=True) == f"unix:{path}"
        listeners.close()
        assert path.is_socket()

    def test_the_blocking_flag_is_not_touched(self, opened: Open) -> None:
        """The description is shared with processes whose event loops a blocking accept would hang."""
        donor = socket.create_server(("127.0.0.1", 0))
        donor.setblocking(False)
        listeners = opened(f"fd://{donor.detach()}")
        assert not os.get_blocking(listeners.for_slot(0)[0].fileno())

    def test_what_does_not_listen_is_refused(self, opened: Open) -> None:
        """Bound but not listening, a datagram socket, a file, nothing at all: each says what is wrong."""
        with socket.socket() as idle, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            for sock in (idle, datagrams):
                error = refusal(lambda sock=sock: opened(f"fd://{sock.fileno()}"))  # type: ignore[misc]
                assert "is not a listening stream socket" in str(error)
                assert sock.fileno() >= 0
        reader, writer = os.pipe()
        assert "is not a socket" in str(refusal(lambda: opened(f"fd://{reader}")))
        os.close(reader)
        os.close(writer)
        assert "is not open" in str(refusal(lambda: opened(f"fd://{reader}")))


def passed_on(listeners: ListenerSet) -> dict[str, list[int]]:
    """What a new program gets: the same sockets, under descriptors of its own."""
    return {key: [os.dup(fd) for fd in fds] for key, fds in listeners.handover().items()}


class TestHandover:
    @pytest.mark.parametrize("reuseport", [False, True])
    def test_a_successor_takes_over_without_losing_a_connection(
        self,
        opened: Open,
        connect: Callable[..., list[socket.socket]],
        tmp_path: Path,
        reuseport: bool,  # noqa: FBT001
    ) -> None:
        """Connections that wait at the moment of the change are answered by the new program."""
        texts = (LOOPBACK, f"unix:{tmp_path}/app.sock")
        old = opened(*texts, reuseport=reuseport)
        clients = [client for listener in old.for_slot(0) for client in connect(listener, 10)]
        new = opened(*texts, reuseport=reuseport, inherited=passed_on(old))
        assert new.addresses == old.addresses
        old.leave_paths()
        new.take_over()
        old.close()
        for slot in range(new.slots_open if reuseport else 1):
            answer_all(new.for_slot(slot)[0], new.queue_depth(slot))
        answer_all(new.for_slot(0)[1], 10)
        assert [client.recv(16) for client in clients] == [b"served"] * 20
        assert (tmp_path / "app.sock").is_socket()
        new.close()
        assert not (tmp_path / "app.sock").exists()

    def test_a_successor_that_fails_leaves_everything(
        self, opened: Open, connect: Callable[..., object], tmp_path: Path
    ) -> None:
        """Before take_over the new program may go without harm: the path and the listeners stay."""
        texts = (LOOPBACK, f"unix:{tmp_path}/app.sock")
        old = opened(*texts, reuseport=True)
        opened(*texts, reuseport=True, inherited=passed_on(old)).close()
        error = refusal(lambda: opened(*texts, "192.0.2.1:1", reuseport=True, inherited=passed_on(old)))
        assert "192.0.2.1" in str(error)
        for listener in old.for_slot(2):
            connect(listener)

    @linux_only
    def test_a_successor_may_want_more_slots(self, opened: Open, connect: Callable[..., object]) -> None:
        """Slots beyond the inherited ones are opened beside them, on the same port."""
        old = opened(LOOPBACK, reuseport=True, slots=1)
        new = opened(LOOPBACK, reuseport=True, slots=3, inherited=passed_on(old))
        old.close()
        connect(new.for_slot(0)[0], CONNECTIONS)
        assert min(new.queue_depth(slot) for slot in range(3)) > 0

    def test_a_successor_keeps_slots_it_does_not_want(self, opened: Open) -> None:
        """Their queues may hold connections: the master drains them and closes them by and by."""
        old = opened(LOOPBACK, reuseport=True, slots=3)
        new = opened(LOOPBACK, reuseport=True, slots=1, inherited=passed_on(old))
        assert new.slots_open == 3

    @linux_only
    def test_steering_of_the_predecessor_ends(self, opened: Open, connect: Callable[..., object]) -> None:
        """A scale-down that was under way does not starve a slot of the new program."""
        old = opened(LOOPBACK, reuseport=True)
        old.steer_below(1)
        new = opened(LOOPBACK, reuseport=True, inherited=passed_on(old))
        new.take_over()
        connect(new.for_slot(0)[0], CONNECTIONS)
        assert min(new.queue_depth(slot) for slot in range(3)) > 0

    @linux_only
    def test_reuseport_can_be_turned_on(self, opened: Open, connect: Callable[..., object]) -> None:
        """A socket that was shared becomes the first of a group."""
        old = opened(LOOPBACK)
        new = opened(LOOPBACK, reuseport=True, inherited=passed_on(old))
        connect(new.for_slot(0)[0], CONNECTIONS)
        assert min(new.queue_depth(slot) for slot in range(3)) > 0
        new.steer_below(1)
        before = new.queue_depth(0)
        connect(new.for_slot(0)[0], CONNECTIONS)
        assert new.queue_depth(0) == before + CONNECTIONS

    def test_reuseport_cannot_be_turned_off(self, opened: Open) -> None:
        """Several queues cannot become one: the upgrade is refused, and the old program goes on."""
        old = opened(LOOPBACK, reuseport=True)
        assert "reuseport is off now" in str(refusal(lambda: opened(LOOPBACK, inherited=passed_on(old))))

    def test_an_address_that_is_no_longer_wanted_is_closed(self, opened: Open) -> None:
        """Its descriptors do not linger in the new program."""
        old = opened(LOOPBACK, "127.0.0.2:0")
        passed = passed_on(old)
        new = opened(LOOPBACK, inherited=passed)
        assert list(new.handover()) == [LOOPBACK]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(passed["127.0.0.2:0"][0])

    def test_an_inherited_descriptor_that_is_none_is_refused(self, opened: Open) -> None:
        """What was passed is looked at, and all of it is closed on refusal."""
        reader, writer = os.pipe()
        inherited = {LOOPBACK: [reader, writer], "127.0.0.2:0": [os.dup(reader)]}
        error = refusal(lambda: opened(LOOPBACK, reuseport=True, inherited=inherited))
        assert f"descriptor {reader} for 127.0.0.1:0 is not a socket" in str(error)

    def test_a_number_other_than_the_configured_one_is_found(self, opened: Open) -> None:
        """fd://N was passed on under another number: its text is the key all the same."""
        donor = socket.create_server(("127.0.0.1", 0))
        text = f"fd://{donor.fileno()}"
        old = opened(text)
        donor.detach()
        new = opened(text, inherited=passed_on(old))
        assert new.addresses[0].port == old.addresses[0].port

    def test_a_path_that_is_gone_at_the_take_over(self, opened: Open, tmp_path: Path) -> None:
        """Nothing to own, nothing to fail."""
        text = f"unix:{tmp_path}/app.sock"
        old = opened(text)
        new = opened(text, inherited=passed_on(old))
        old.close()
        new.take_over()
        new.close()


def test_an_owned_path_belongs_to_the_process_that_claimed_it(tmp_path: Path) -> None:
    """Another pid's claim removes nothing."""
    path = tmp_path / "file"
    path.touch()
    claim = OwnedPath.claim(str(path))
    OwnedPath(claim.path, claim.device, claim.inode, claim.pid + 1).remove()
    assert path.exists()
    claim.remove()
    assert not path.exists()
