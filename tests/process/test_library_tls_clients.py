"""TLS under the real master: certificates of clients, tickets that resume on any worker, certificates read again."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP

import pytest
import trustme

from tests.process.apps import Site, reload, wait_until_ready
from tests.process.harness import WAIT_S, Fleet, wait_until

Start = Callable[..., Fleet]

APP = """
    import json, os

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        tls = scope["extensions"]["tls"]
        told = {"pid": os.getpid(), "scheme": scope["scheme"], "name": tls["client_cert_name"]}
        told |= {"chain": len(tls["client_cert_chain"]), "version": tls["tls_version"]}
        body = json.dumps(told).encode()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
    """
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
REFUSED = (ssl.SSLError, ConnectionResetError, BrokenPipeError)
WORKERS = 4
TRIES = 24
"""With four workers, so many connections that reach one only would come by chance once in 10^14."""


class Material:
    """A folder with the server's certificate and key, and its clients' authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.clients.cert_pem.write_to_path(str(folder / "clients.pem"))
        self.issue()

    def issue(self) -> str:
        """Another certificate for the server: its serial number, as `served` tells it."""
        issued = self.authority.issue_cert("localhost")
        (self.folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        (self.folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
        pem = issued.cert_chain_pems[0].bytes().decode()
        return ssl.PEM_cert_to_DER_cert(pem).hex()

    def words(self, *extra: str) -> list[str]:
        """What the command is told."""
        return [
            "--certfile",
            str(self.folder / "cert.pem"),
            "--keyfile",
            str(self.folder / "key.pem"),
            *extra,
        ]

    def asking(self, *extra: str) -> list[str]:
        """As `words`, and clients are asked for a certificate."""
        return self.words("--client-ca", str(self.folder / "clients.pem"), *extra)

    def client(self, version: ssl.TLSVersion, shows: trustme.CA | None = None) -> ssl.SSLContext:
        """A client that believes the server; and shows a certificate of this authority."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.minimum_version = context.maximum_version = version
        if shows is not None:
            shows.issue_cert("me@example.org", common_name="me").configure_cert(context)
        return context


@pytest.fixture
def material(tmp_path: Path) -> Material:
    """Certificates of this test's own."""
    return Material(tmp_path)


@pytest.fixture
def started(fleet_of: Start, tmp_path: Path) -> Start:
    """`started(*words)`: a fleet that serves `APP`, ready."""

    def start(*words: str, workers: int = 1) -> Fleet:
        site = Site(tmp_path)
        site.write(APP)
        fleet = fleet_of(*site.serving(*words, workers=workers))
        wait_until_ready(fleet, workers)
        return fleet

    return start


def connect(fleet: Fleet, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """A connection, its handshake done."""
    plain = socket.create_connection(("127.0.0.1", fleet.port), WAIT_S)
    try:
        return context.wrap_socket(plain, server_hostname="localhost", session=session)
    except BaseException:
        plain.close()
        raise


def ask(connection: ssl.SSLSocket) -> dict[str, object]:
    """What the application was told."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while not received.endswith(b"}"):
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("closed without an answer")
        received += data
    assert received.startswith(b"HTTP/1.1 200 ")
    found: dict[str, object] = json.loads(received.partition(b"\r\n\r\n")[2])
    return found


def asked(fleet: Fleet, context: ssl.SSLContext) -> dict[str, object]:
    with connect(fleet, context) as connection:
        return ask(connection)


# -- certificates of clients --------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [(), ("--client-cert", "required")])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_is_required(
    started: Start, material: Material, version: ssl.TLSVersion, extra: tuple[str, ...]
) -> None:
    """Unless it is said otherwise. None, and one of another authority, are refused; nothing of it reaches the application."""
    fleet = started(*material.asking(*extra))
    for shows in (None, trustme.CA()):
        with pytest.raises(REFUSED):
            asked(fleet, material.client(version, shows))
    found = asked(fleet, material.client(version, material.clients))
    assert (found["scheme"], found["chain"]) == ("https", 1)
    assert "CN=me" in str(found["name"])
    assert "Traceback" not in fleet.output
    assert fleet.stop() == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_is_optional(started: Start, material: Material, version: ssl.TLSVersion) -> None:
    """Who shows none is served, and the application knows; a wrong one is refused all the same."""
    fleet = started(*material.asking("--client-cert", "optional"))
    found = asked(fleet, material.client(version))
    assert (found["chain"], found["name"]) == (0, None)
    assert asked(fleet, material.client(version, material.clients))["chain"] == 1
    with pytest.raises(REFUSED):
        asked(fleet, material.client(version, trustme.CA()))
    assert fleet.stop() == 0


def test_nobody_is_asked_for_a_certificate(started: Start, material: Material) -> None:
    fleet = started(*material.words())
    found = asked(fleet, material.client(ssl.TLSVersion.TLSv1_3, material.clients))
    assert (found["chain"], found["name"]) == (0, None)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "does not exist"),
        (b"", "no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "damaged"),
        ("key.pem", "no certificate in PEM"),
        ("folder", "cannot be read"),
    ],
)
def test_a_file_of_authorities_that_cannot_be(
    fleet_of: Start, material: Material, content: bytes | str | None, why: str
) -> None:
    """Status 2, and one line that names it; nothing was started."""
    path = material.folder / "clients.pem"
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif isinstance(content, str):
        path.write_bytes((material.folder / content).read_bytes())
    elif content is not None:
        path.write_bytes(content)
    site = Site(material.folder)
    fleet = fleet_of(*site.serving(*material.asking()))
    assert fleet.wait() == 2
    (line,) = [line for line in fleet.lines if "rror" in line]
    assert str(path) in line
    assert why in line
    assert "serving" not in fleet.output


def test_asking_for_certificates_without_tls(fleet_of: Start, material: Material) -> None:
    """It would be done by nobody."""
    site = Site(material.folder)
    fleet = fleet_of(*site.serving("--client-ca", str(material.folder / "clients.pem")))
    assert fleet.wait() == 2
    (line,) = [line for line in fleet.lines if "rror" in line]
    assert "client_ca" in line


# -- tickets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
@pytest.mark.parametrize("is_asking", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_resumes_on_any_worker(
    started: Start, material: Material, version: ssl.TLSVersion, sharing: tuple[str, ...], *, is_asking: bool
) -> None:
    """Its ticket is of a key that all have; and the certificate that the client showed then is known still."""
    words = material.asking() if is_asking else material.words()
    fleet = started(*words, *sharing, workers=WORKERS)
    context = material.client(version, material.clients)
    with connect(fleet, context) as connection:
        first = ask(connection)
        session = connection.session
    assert session is not None
    assert session.has_ticket
    pids = set()
    # All at once, so that no single worker takes them one after the other.
    with contextlib.ExitStack() as open_ones:
        for _ in range(TRIES):
            again = open_ones.enter_context(connect(fleet, context, session))
            assert again.session_reused
            told = ask(again)
            assert {**told, "pid": 0} == {**first, "pid": 0}
            pids.add(told["pid"])
    assert len(pids) > 1
    assert first["chain"] == (1 if is_asking else 0)


# -- reading again ------------------------------------------------------------------------------------


def certificate(fleet: Fleet, context: ssl.SSLContext) -> str:
    """The certificate that the fleet shows."""
    with connect(fleet, context) as connection:
        ask(connection)
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return found.hex()


def test_certificates_are_read_again_at_a_reload(started: Start, material: Material) -> None:
    """After HUP every worker shows the new one, and asks by the new authorities."""
    before = material.issue()
    fleet = started(*material.asking(), workers=2)
    old, version = material.clients, ssl.TLSVersion.TLSv1_3
    assert certificate(fleet, material.client(version, old)) == before
    after = material.issue()
    material.clients = trustme.CA()
    material.clients.cert_pem.write_to_path(str(material.folder / "clients.pem"))
    assert certificate(fleet, material.client(version, old)) == before  # nobody has asked for the new one yet
    reload(fleet)
    context = material.client(version, material.clients)
    assert {certificate(fleet, context) for _ in range(8)} == {after}
    with pytest.raises(REFUSED):
        asked(fleet, material.client(version, old))
    assert fleet.stop() == 0


@pytest.mark.parametrize("broken", ["cert.pem", "key.pem", "clients.pem"])
def test_a_reload_with_a_file_that_cannot_be(started: Start, material: Material, broken: str) -> None:
    """The old workers go on serving with what they have read; then the file is mended, and the next reload succeeds."""
    before = material.issue()
    fleet = started(*material.asking(), workers=2)
    context = material.client(ssl.TLSVersion.TLSv1_3, material.clients)
    path = material.folder / broken
    good = path.read_bytes()
    path.write_bytes(b"nonsense")
    since = fleet.mark()
    fleet.signal(SIGHUP)
    fleet.wait_for("reload.*(failed|given up|kept)", since=since)
    assert {certificate(fleet, context) for _ in range(4)} == {before}
    assert not any("Traceback" in line for line in fleet.lines[since:])
    path.write_bytes(good)
    after = material.issue()
    reload(fleet)
    wait_until(lambda: certificate(fleet, context) == after, "the new certificate", show=lambda: fleet.output)
