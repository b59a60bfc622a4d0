"""What TLS is served with, named or in memory. Apart from `tls`, so that a master without TLS never loads OpenSSL."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """PEM files by name: the certificate with its chain, and its key."""

    cert_file: str
    key_file: str


@dataclass(frozen=True, slots=True)
class TLSBytes:
    """PEM in memory: the certificate with its chain, and its key, which `repr` keeps to itself."""

    cert_data: bytes
    key_data: bytes = field(repr=False)


TLSMaterial = TLSFiles | TLSBytes
