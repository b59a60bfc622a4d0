"""TLS material, and the `ssl.SSLContext` made of it.

Rules:

* Certificate and key are looked at before OpenSSL sees them, because its own messages ("PEM lib") do not
  say what to do. Every refusal is a `TLSConfigError` of one line, and never holds a byte of the key.
* Material given as bytes (seed: `ListenAndServeTLSEmbed`) never reaches a disk. Python's `ssl` loads from
  paths only, so the path is that of a memory file (memfd_create), or of a pipe where there is none.
* A context made before the fork lets a session ticket resume on any worker. So the zygote
  makes it, where it can.

Rejected for the bytes: a temporary file that is unlinked at once. It is on the disk while it is open, and
stays there if the process is killed in between.
Not here: renewal of certificates while running. A reload makes a new context, of the files as they are then.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from prefork.errors import TLSConfigError
from prefork.net.material import Clients, TLSBytes, TLSFiles

_CERTIFICATE: Final = re.compile(rb"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----")
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----")
_ALPN: Final = ("http/1.1",)


class _EncryptedKeyError(Exception):
    """OpenSSL asked for a passphrase."""


def server_context(material: TLSFiles | TLSBytes, alpn: Sequence[str] = _ALPN) -> ssl.SSLContext:
    """Make the server's context: TLS 1.2 or later, `alpn` offered in this order.

    Raises `TLSConfigError` with one line that says what to do, for a file that is missing or unreadable,
    for what is not PEM, for an encrypted key, and for a key that is not the certificate's. Leaves no
    descriptor open. Runs in the master, the zygote or a worker; blocks on reading files only.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # As Go does: each ticket costs a full handshake 40 µs, a tenth of it, and hardly a client uses two.
    context.num_tickets = 1
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if material.clients is not None:
        _ask_clients(context, material.clients)
    if isinstance(material, TLSFiles):
        names = (material.cert_file, material.key_file)
        _look_at(names, _read("certificate", names[0]), _read("key", names[1]))
        _load(context, names, names)
        return context
    names = ("certificate data", "key data")
    _look_at(names, material.cert_data, material.key_data)
    with _in_memory(material.cert_data) as cert_path, _in_memory(material.key_data) as key_path:
        _load(context, names, (cert_path, key_path))
    return context


def read_in(material: TLSFiles) -> TLSBytes:
    """The same in memory, for a process that gives up the right to read the files. Raises TLSConfigError."""
    cert, key = _read("certificate", material.cert_file), _read("key", material.key_file)
    return TLSBytes(cert, key, material.clients)


def _read(what: str, name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise TLSConfigError(f"{what} file {name!r} does not exist: check the path") from error
    except PermissionError as error:
        raise TLSConfigError(
            f"{what} file {name!r} is not readable for this user: check its owner"
        ) from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise TLSConfigError(f"{what} file {name!r} cannot be read: {reason}") from error


def _ask_clients(context: ssl.SSLContext, clients: Clients) -> None:
    """Ask clients for a certificate, and believe those that the authorities in the file have signed (RFC 8446 §4.3.2)."""
    name = clients.ca_file
    if _CERTIFICATE.search(_read("client CA", name)) is None:
        raise TLSConfigError(
            f"{name} holds no certificate in PEM: give those of who signs your clients' certificates"
        )
    try:
        context.load_verify_locations(name)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        raise TLSConfigError(f"{name} cannot be read as PEM ({reason}): the file may be damaged") from error
    context.verify_mode = ssl.CERT_REQUIRED if clients.is_required else ssl.CERT_OPTIONAL


def _look_at(names: tuple[str, str], cert: bytes, key: bytes) -> None:
    """Refuse what is recognisably not a certificate and a key in PEM."""
    has_certificate, has_key = _CERTIFICATE.search(cert), _KEY.search(key)
    if not has_certificate and not has_key and _KEY.search(cert) and _CERTIFICATE.search(key):
        raise TLSConfigError(
            f"{names[0]} holds a key and {names[1]} a certificate; listen_and_serve_tls takes"
            " key first, then certificate: were they swapped?"
        )
    if not has_certificate:
        raise TLSConfigError(
            f"{names[0]} holds no certificate in PEM ('-----BEGIN CERTIFICATE-----'):"
            " convert it with `openssl x509 -inform der`, or check which file it is"
        )
    if not has_key:
        raise TLSConfigError(
            f"{names[1]} holds no private key in PEM ('-----BEGIN PRIVATE KEY-----'):"
            " convert it with `openssl pkey -inform der`, or check which file it is"
        )


def _load(context: ssl.SSLContext, names: tuple[str, str], paths: tuple[str, str]) -> None:
    try:
        # With a callback, for otherwise OpenSSL would ask for the passphrase on the terminal, and wait.
        context.load_cert_chain(*paths, password=_no_passphrase)
    except _EncryptedKeyError as error:
        raise TLSConfigError(
            f"{names[1]} is encrypted, and nobody is there to type its passphrase:"
            " decrypt it with `openssl pkey`, and guard the file"
        ) from error
    except ssl.SSLError as error:
        raise TLSConfigError(_trouble(names, error)) from error
    except OSError as error:
        raise TLSConfigError(f"cannot load {names[0]} and {names[1]}: {error.strerror}") from error


def _no_passphrase() -> NoReturn:
    raise _EncryptedKeyError


def _trouble(names: tuple[str, str], error: ssl.SSLError) -> str:
    cert, key = names
    reason = error.reason or ""
    # The third is what OpenSSL 3 says where the two are not even of the same type, as RSA and ECDSA.
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return f"{key} is not the key of {cert}: give the pair that was issued together"
    if reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"{cert} is too weak for OpenSSL here ({reason}): issue it with a longer key and SHA-256"
    if reason in ("UNKNOWN_CERTIFICATE_TYPE", "UNSUPPORTED_ALGORITHM"):
        return f"{key} is of a type that a server's key cannot have here: use RSA, ECDSA or Ed25519"
    return f"{cert} and {key} cannot be read as PEM ({reason or error}): the file may be cut off or damaged"


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path from which OpenSSL reads `data`, backed by memory alone; gone afterwards."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("prefork-tls", os.MFD_CLOEXEC)
        try:
            _write_all(fd, data)
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
        return
    reader, writer = os.pipe()
    try:
        try:
            # The pipe has to hold all of it, as nobody reads yet. 16 KiB at least (macOS), 64 on Linux.
            os.set_blocking(writer, False)
            _write_all(writer, data)
        except BlockingIOError as error:
            raise TLSConfigError(f"{len(data)} bytes of PEM are too many here: give files instead") from error
        finally:
            os.close(writer)
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
