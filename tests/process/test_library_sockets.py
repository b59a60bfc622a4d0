"""`network`, `reuseport` and TLS, with real clients."""

from __future__ import annotations

import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.harness import WAIT_S
from tests.process.library import METHODS, Client, ask, client, make_certificate, places, ready_workers, run

Script = Callable[..., Path]

NETWORK = """
    from prefork import Prefork
    from story import *

    network, address = sys.argv[2:4]
    tell(lambda: Prefork(serve_func=serve, workers=2, start_method=METHOD, network=network,
                         reuseport=len(sys.argv) > 4).listen_and_serve(address))
"""


@pytest.mark.parametrize(
    ("network", "address", "clients"),
    [
        ("tcp4", ":0", ["127.0.0.1"]),
        ("tcp6", ":0", ["[::1]"]),
        ("tcp6", "[::1]:0", ["[::1]"]),
        ("tcp", ":0", ["127.0.0.1", "[::1]"]),
        ("tcp", "127.0.0.1:0", ["127.0.0.1"]),
    ],
)
def test_each_network_is_served_by_its_family(
    python_script: Script, network: str, address: str, clients: list[str]
) -> None:
    """Seed: tcp4 is IPv4 alone, tcp6 IPv6 alone, tcp both; as Go's net.Listen."""
    with run(python_script(NETWORK), "fork", network, address) as fleet:
        workers = ready_workers(fleet, 2)
        port = places(fleet)[0].rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            if host in clients:
                with Client.at(f"{host}:{port}") as each:
                    assert int(each.ask("pid")) in workers
            else:
                with pytest.raises(ConnectionRefusedError):
                    Client.at(f"{host}:{port}")
        assert fleet.stop() == 0


@pytest.mark.parametrize(("method", "form"), [("fork", "{}"), ("exec", "unix:{}")])
def test_a_unix_socket(python_script: Script, tmp_path: Path, method: str, form: str) -> None:
    """Its path is there while it is served, outlives a worker, and is gone afterwards."""
    path = tmp_path / "socket"
    with run(python_script(NETWORK), method, "unix", form.format(path)) as fleet:
        workers = ready_workers(fleet, 2)
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert int(ask(fleet, "pid")) in workers
        fleet.kill(workers[0])
        ready_workers(fleet, 3)
        assert ask(fleet, "pid")
        assert fleet.stop() == 0
        assert not path.exists()


def listening(pid: int, port: int) -> set[str]:
    """The inodes of the listening sockets on `port` that a process holds."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    ours = {f"socket:[{f[9]}]" for f in fields if int(f[1].rpartition(":")[2], 16) == port and f[3] == "0A"}
    return ours & set(procfs.open_descriptors(pid).values())


@pytest.mark.parametrize("method", METHODS)
def test_reuseport_is_a_socket_for_each_worker(python_script: Script, method: str) -> None:
    """Each worker has one of its own; the master holds all, and hands a dead worker's to its replacement."""
    with run(python_script(NETWORK), method, "tcp4", "127.0.0.1:0", "reuseport") as fleet:
        first, second = ready_workers(fleet, 2)
        port = int(places(fleet)[0].rpartition(":")[2])
        one, other = listening(first, port), listening(second, port)
        assert len(one) == len(other) == 1
        assert not one & other
        assert listening(fleet.pid, port) == one | other
        fleet.kill(first)
        third = ready_workers(fleet, 3)[2]
        assert listening(third, port) == one
        assert fleet.stop() == 0


def test_shared_is_one_socket_for_all(python_script: Script) -> None:
    """The default: one open socket, the master's too."""
    with run(python_script(NETWORK), "fork", "tcp4", "127.0.0.1:0") as fleet:
        first, second = ready_workers(fleet, 2)
        port = int(places(fleet)[0].rpartition(":")[2])
        assert listening(first, port) == listening(second, port) == listening(fleet.pid, port)
        assert len(listening(fleet.pid, port)) == 1
        assert fleet.stop() == 0


TLS = """
    import asyncio, ssl
    from prefork import Prefork, Server
    from prefork.servers.streams import StreamsServer
    from story import *

    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(f"{WORDS[line.decode().strip()]()}\\n".encode())

    async def own(listener, cert_file, key_file):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert_file, key_file)
        async with await asyncio.start_server(echo, sock=listener, ssl=context) as server:
            await server.serve_forever()

    given = {"serve_tls_func": own} if sys.argv[2] == "own" else {"server": StreamsServer(echo)}
    fleet = Prefork(workers=2, start_method=METHOD, **given)
    key, cert = sys.argv[3:]

    def start():
        if sys.argv[2] == "bytes":
            with open(cert, "rb") as c, open(key, "rb") as k:
                cert_data, key_data = c.read(), k.read()
            if not os.environ.get("KEEP"):
                for path in (cert, key):
                    if os.path.exists(path) and not is_child():
                        os.rename(path, path + ".gone")
            fleet.listen_and_serve_tls_embed(ANY_PORT, cert_data, key_data)
        else:
            fleet.listen_and_serve_tls(ANY_PORT, key, cert)

    tell(start)
"""


def tls_client(place: str, ca: Path) -> Client:
    context = ssl.create_default_context(cafile=str(ca))
    host, _, port = place.rpartition("://")[2].rpartition(":")
    raw = socket.create_connection((host, int(port)), WAIT_S)
    return Client(context.wrap_socket(raw, server_hostname="localhost"))


@pytest.mark.parametrize(
    ("method", "way"),
    [("fork", "files"), ("exec", "files"), ("fork", "own"), ("fork", "bytes"), ("exec", "bytes")],
)
def test_tls(python_script: Script, tmp_path: Path, method: str, way: str) -> None:
    """A client that checks the certificate is served; by a function of the program's own too."""
    cert, key, ca = make_certificate(tmp_path)
    keep = {"KEEP": "1"} if method == "exec" else {}
    with run(python_script(TLS), method, way, str(key), str(cert), env=keep) as fleet:
        workers = ready_workers(fleet, 2)
        (place,) = places(fleet)
        assert place.startswith("https://")
        for _ in range(3):
            with tls_client(place, ca) as each:
                assert int(each.ask("pid")) in workers
        if way == "bytes" and not keep:
            assert not key.exists()  # what was given as bytes is served without its file
        assert fleet.stop() == 0


def test_bytes_never_touch_a_disk(python_script: Script, tmp_path: Path) -> None:
    """No file is made where temporary files are, and none is open, not even a nameless one."""
    cert, key, ca = make_certificate(tmp_path)
    folder = tmp_path / "tmp"
    folder.mkdir()
    env = {"TMPDIR": str(folder)}
    with run(python_script(TLS), "fork", "bytes", str(key), str(cert), env=env, cwd=folder) as fleet:
        workers = ready_workers(fleet, 2)
        with tls_client(places(fleet)[0], ca) as each:
            assert int(each.ask("pid")) in workers
        assert list(folder.iterdir()) == []
        assert not any(
            "pem" in str(path) or "prefork-tls" in str(path) for path in open_files(fleet.pid, *workers)
        )
        assert fleet.stop() == 0
        assert list(folder.iterdir()) == []


def open_files(*pids: int) -> list[str]:
    return [target for pid in pids for target in procfs.open_descriptors(pid).values()]


@pytest.mark.parametrize("way", ["files", "bytes"])
def test_a_key_of_another_certificate(python_script: Script, tmp_path: Path, way: str) -> None:
    """Told in one line, by a TLSConfigError, before a process is started or a port opened."""
    cert, _, _ = make_certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, key, _ = make_certificate(other)
    with run(python_script(TLS), "fork", way, str(key), str(cert)) as fleet:
        fleet.wait_for("raised TLSConfigError: .*is not the key of")
        assert fleet.wait() == 0
        assert len(fleet.lines) == 1


def test_key_and_certificate_swapped(python_script: Script, tmp_path: Path) -> None:
    """The likeliest mistake, because other packages take them the other way round, has its own message."""
    cert, key, _ = make_certificate(tmp_path)
    with run(python_script(TLS), "fork", "files", str(cert), str(key)) as fleet:
        fleet.wait_for("raised TLSConfigError: .*key first, then certificate")
        assert fleet.wait() == 0


def test_a_plain_client_of_a_tls_port(python_script: Script, tmp_path: Path) -> None:
    """It gets nothing; the next client, who speaks TLS, is served by the same worker."""
    cert, key, ca = make_certificate(tmp_path)
    with run(python_script(TLS), "fork", "files", str(key), str(cert)) as fleet:
        workers = ready_workers(fleet, 2)
        with client(fleet) as plain:
            plain.send("pid" * 10)
            assert not plain.hear().isdigit()
        with tls_client(places(fleet)[0], ca) as each:
            assert int(each.ask("pid")) in workers
        assert set(fleet.workers()) == set(workers)
        assert fleet.stop() == 0
