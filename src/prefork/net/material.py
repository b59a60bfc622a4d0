"""What TLS is served with, named or in memory. Apart from `tls`, so that a master without TLS never loads OpenSSL."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Clients:
    """Who may be a client: whoever shows a certificate that one of `ca_file` (PEM) has signed."""

    ca_file: str
    is_required: bool = True
    """False: who shows none is served, too, and the application is told."""


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """PEM files by name: the certificate with its chain, and its key."""

    cert_file: str
    key_file: str
    clients: Clients | None = None


@dataclass(frozen=True, slots=True)
class TLSBytes:
    """PEM in memory: the certificate with its chain, and its key, which `repr` keeps to itself."""

    cert_data: bytes
    key_data: bytes = field(repr=False)
    clients: Clients | None = None


TLSMaterial = TLSFiles | TLSBytes
