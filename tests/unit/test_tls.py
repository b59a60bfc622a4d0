from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from prefork.errors import TLSConfigError
from prefork.net.material import TLSBytes, TLSFiles
from prefork.net.tls import server_context

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8


@dataclass(frozen=True)
class Pair:
    """A certificate for localhost with its chain, its key, and who vouches for it."""

    cert: bytes
    key: bytes
    authority: trustme.CA

    def files(self, directory: Path) -> TLSFiles:
        cert, key = directory / "cert.pem", directory / "key.pem"
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)
        return TLSFiles(str(cert), str(key))


def issue() -> Pair:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return Pair(chain, leaf.private_key_pem.bytes(), authority)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return issue()


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    """Whatever a test does with a context, as many descriptors are open afterwards as before."""
    before = sorted(os.listdir("/dev/fd"))
    yield
    assert sorted(os.listdir("/dev/fd")) == before


def shake_hands(
    context: ssl.SSLContext, pair: Pair, *, maximum: ssl.TLSVersion | None = None
) -> ssl.SSLSocket:
    """Connect to a server with `context`, check it against the pair's authority, return the client's end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(45)
    theirs.settimeout(45)

    def serve() -> None:
        try:
            with context.wrap_socket(theirs, server_side=True) as secured:
                secured.sendall(b"hello")
        except (ssl.SSLError, OSError):
            theirs.close()  # the client's side tells the story

    thread = threading.Thread(target=serve)
    thread.start()
    trusting = ssl.create_default_context()
    pair.authority.configure_trust(trusting)
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    if maximum is not None:
        trusting.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        trusting.maximum_version = maximum
    try:
        return trusting.wrap_socket(ours, server_hostname="localhost")
    finally:
        thread.join(45)
        ours.close()


def refusal_of(material: TLSFiles | TLSBytes) -> str:
    with pytest.raises(TLSConfigError) as refusal:
        server_context(material)
    message = str(refusal.value)
    assert "\n" not in message
    assert "PRIVATE KEY-----\n" not in message
    return message


def test_files_serve_tls(pair: Pair, tmp_path: Path) -> None:
    """A context from files is trusted by a client, speaks TLS 1.2 or later, and offers HTTP/1.1."""
    context = server_context(pair.files(tmp_path))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    with shake_hands(context, pair) as client:
        assert client.recv(16) == b"hello"
        assert client.selected_alpn_protocol() == "http/1.1"


def test_bytes_serve_tls(pair: Pair) -> None:
    """A context from PEM in memory is as good as one from files."""
    with shake_hands(server_context(TLSBytes(pair.cert, pair.key)), pair) as client:
        assert client.recv(16) == b"hello"


def test_bytes_serve_tls_where_there_is_no_memory_file(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memfd_create the bytes go through a pipe, and nothing else changes."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with shake_hands(server_context(TLSBytes(pair.cert, pair.key)), pair) as client:
        assert client.recv(16) == b"hello"


def test_more_bytes_than_a_pipe_holds_are_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe is never waited for: what does not fit is a clear error."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert "too many" in refusal_of(TLSBytes(pair.cert * 500, pair.key))


def test_protocols_are_offered_in_the_order_given(pair: Pair) -> None:
    """HTTP/2 is for servers that speak it: they ask for it, and no protocol at all is possible too."""
    material = TLSBytes(pair.cert, pair.key)
    with shake_hands(server_context(material, alpn=["h2", "http/1.1"]), pair) as client:
        assert client.selected_alpn_protocol() == "h2"
    with shake_hands(server_context(material, alpn=()), pair) as client:
        assert client.selected_alpn_protocol() is None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_an_old_protocol_is_turned_away(pair: Pair) -> None:
    """TLS 1.1 does not get a handshake."""
    context = server_context(TLSBytes(pair.cert, pair.key))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake_hands(context, pair, maximum=ssl.TLSVersion.TLSv1_1)


def test_one_file_may_hold_both(pair: Pair, tmp_path: Path) -> None:
    """Key and certificate in one PEM file, as HAProxy has it, is fine."""
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key + pair.cert)
    server_context(TLSFiles(str(both), str(both)))
    server_context(TLSBytes(pair.key + pair.cert, pair.key + pair.cert))


@pytest.mark.parametrize("without_memory_file", [False, True])
def test_bytes_never_reach_a_disk(tmp_path: Path, pair: Pair, *, without_memory_file: bool) -> None:
    """Every path that Python or OpenSSL is given while loading bytes is a descriptor, not a regular file."""
    program = """
import os, stat, ssl, sys, tempfile
from prefork.net.material import TLSBytes
from prefork.net.tls import server_context
cert, key = sys.stdin.buffer.read().split(b"-- cut --")
if sys.argv[1] == "True":
    del os.memfd_create
seen, loaded = [], []
plain = ssl.SSLContext.load_cert_chain
def spy(self, certfile, keyfile=None, password=None):
    loaded.extend(stat.S_IFMT(os.stat(path).st_mode) for path in (certfile, keyfile))
    loaded.extend(os.stat(path).st_nlink for path in (certfile, keyfile))
    return plain(self, certfile, keyfile, password)
ssl.SSLContext.load_cert_chain = spy
sys.addaudithook(lambda event, args: seen.append((event, args)) if event in ("open", "os.link") or
                 event.startswith("tempfile.") else None)
server_context(TLSBytes(cert, key))
assert seen == [], seen
print(loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(without_memory_file)],
        input=pair.cert + b"-- cut --" + pair.key,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    # Two pipes, which no directory can hold, or two memory files, which none does: their link count is 0.
    expected = [0o010000, 0o010000, 1, 1] if without_memory_file else [0o100000, 0o100000, 0, 0]
    assert done.stdout.decode().strip() == str(expected)
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_not_in_the_repr(pair: Pair) -> None:
    """Logging the material does not leak the key."""
    assert "PRIVATE" not in repr(TLSBytes(b"cert", pair.key))


def test_a_missing_file_is_named(pair: Pair, tmp_path: Path) -> None:
    """The message says which of the two files is not there."""
    files = pair.files(tmp_path)
    assert "certificate file 'nowhere.pem' does not exist" in refusal_of(
        TLSFiles("nowhere.pem", files.key_file)
    )
    assert "key file 'nowhere.key' does not exist" in refusal_of(TLSFiles(files.cert_file, "nowhere.key"))


def test_an_unreadable_file_is_named(pair: Pair, tmp_path: Path) -> None:
    """A directory, a bad name, and a file without permission each say what is wrong."""
    files = pair.files(tmp_path)
    assert "cannot be read: Is a directory" in refusal_of(TLSFiles(str(tmp_path), files.key_file))
    assert "cannot be read" in refusal_of(TLSFiles("nul\0", files.key_file))


def test_a_file_without_permission_is_named(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that this user may not read says so; root may read everything, so the refusal is played."""
    files = pair.files(tmp_path)
    read = Path.read_bytes

    def refuse_the_key(path: Path) -> bytes:
        if path.name == "key.pem":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse_the_key)
    assert "is not readable for this user" in refusal_of(files)


def test_swapped_files_are_recognised(pair: Pair, tmp_path: Path) -> None:
    """The seed's order is key before certificate, so the likeliest mistake has its own message."""
    files = pair.files(tmp_path)
    advice = "key first, then certificate: were they swapped?"
    assert advice in refusal_of(TLSFiles(files.key_file, files.cert_file))
    assert advice in refusal_of(TLSBytes(pair.key, pair.cert))


def test_what_is_not_pem_is_refused(pair: Pair) -> None:
    """DER, rubbish and nothing at all are told apart from PEM before OpenSSL sees them."""
    der = ssl.PEM_cert_to_DER_cert(pair.authority.cert_pem.bytes().decode())
    assert "no certificate in PEM" in refusal_of(TLSBytes(der, pair.key))
    assert "no private key in PEM" in refusal_of(TLSBytes(pair.cert, b"rubbish"))
    assert "no certificate in PEM" in refusal_of(TLSBytes(b"", b""))
    assert "no private key in PEM" in refusal_of(TLSBytes(pair.cert, pair.cert))
    assert "no certificate in PEM" in refusal_of(TLSBytes(pair.key, pair.key))


def test_damaged_pem_is_refused(pair: Pair) -> None:
    """A file that was cut off in the middle is called damaged."""
    assert "cut off or damaged" in refusal_of(TLSBytes(pair.cert[:200], pair.key))
    assert "cut off or damaged" in refusal_of(TLSBytes(pair.cert, pair.key[:100]))


def test_an_encrypted_key_is_not_asked_about(pair: Pair, tmp_path: Path) -> None:
    """No prompt on a terminal: the message says to decrypt, for both ways to encrypt a PEM key."""
    key = serialization.load_pem_private_key(pair.key, None)
    secret = serialization.BestAvailableEncryption(b"secret")
    for form in (PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        encrypted = key.private_bytes(PEM, form, secret)
        assert "encrypted" in refusal_of(TLSBytes(pair.cert, encrypted))
        assert "decrypt it" in refusal_of(Pair(pair.cert, encrypted, pair.authority).files(tmp_path))


def test_a_key_of_another_certificate_is_refused(pair: Pair) -> None:
    """Same type or other type: a key that does not belong says so."""
    nothing = serialization.NoEncryption()
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        stranger = key.private_bytes(PEM, PKCS8, nothing)
        assert "is not the key of" in refusal_of(TLSBytes(pair.cert, stranger))
