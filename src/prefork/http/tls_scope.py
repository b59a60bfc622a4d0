"""ASGI's extension `tls`: what an application may know of the TLS that a connection came by (ASGI TLS extension 0.2).

Not here: whether a certificate is asked for, and whose are believed (`net.tls`).
"""

from __future__ import annotations

import ssl
from typing import Any, Final

_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_SUITES: Final = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
}
"""The numbers of RFC 8446 §B.4, RFC 5289 and RFC 7905 behind OpenSSL's names; of all others the number is not told."""

_ATTRIBUTES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
"""RFC 4514 §3."""


def tls_extension(connection: ssl.SSLObject | None) -> dict[str, Any]:
    """The extension, by its name, for a connection over TLS; nothing for another.

    What is in it cannot be changed: a shallow copy is an application's own.
    """
    if connection is None:
        return {}
    certificate = connection.getpeercert(binary_form=True)
    cipher = connection.cipher()
    return {
        "tls": {
            "server_cert": None,
            "client_cert_chain": (ssl.DER_cert_to_PEM_cert(certificate),) if certificate else (),
            "client_cert_name": _name(connection.getpeercert()) if certificate else None,
            "client_cert_error": None,
            "tls_version": _VERSIONS.get(connection.version() or ""),
            "cipher_suite": _SUITES.get(cipher[0]) if cipher else None,
        }
    }


def tls_key(connection: ssl.SSLObject | None) -> tuple[str | None, str] | None:
    """What the extension depends on, for a client without a certificate; None for one that has one.

    A connection without TLS has a key, too.
    """
    if connection is None:
        return "", ""
    if connection.getpeercert(binary_form=True):
        return None
    cipher = connection.cipher()
    return connection.version(), cipher[0] if cipher else ""


def _name(certificate: Any) -> str | None:
    """The subject as RFC 4514 writes it: last first, special characters escaped."""
    parts = [
        "+".join(f"{_ATTRIBUTES.get(kind, kind)}={_escape(value)}" for kind, value in relative)
        for relative in reversed((certificate or {}).get("subject", ()))
    ]
    return ",".join(parts) or None


def _escape(value: str) -> str:
    escaped = "".join("\\" + each if each in '"+,;<>\\=' else each for each in value).replace("\0", "\\00")
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    return escaped[:-1] + "\\ " if len(escaped) > 1 and escaped.endswith(" ") else escaped
