"""A WSGI environ: what an application is told of a request (PEP 3333, "environ Variables"; RFC 3875 §4.1).

Rules:

* Strings are bytes as latin-1, as PEP 3333 has it. `PATH_INFO` is decoded from %xx; `RAW_URI` and `REQUEST_URI` are as
  they came.
* A header that comes several times is one value: joined by a comma (RFC 9110 §5.3), cookies by a semicolon.
* A name with an underscore is dropped: as an environ key it would pass for the one with a dash, which a proxy in front
  has checked. `Proxy` is dropped: programs take HTTP_PROXY for a setting (CVE-2016-5385).

Not here: CONTENT_LENGTH and `wsgi.input` of a body, which is read first (`wsgi_input`).
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from prefork.http.connection import Connection
from prefork.http.exchange import LogFields
from prefork.http.forwarded import Client, Origin
from prefork.http.request import Target
from prefork.http.tls_scope import tls_extension
from prefork.http.wsgi_errors import ErrorStream
from prefork.http.wsgi_file import FileWrapper
from prefork.http.wsgi_input import EMPTY

_PERCENT: Final = ord("%")

_COMMON: Final = (
    b"accept accept-encoding accept-language authorization cache-control connection cookie dnt expect host "
    b"if-modified-since if-none-match origin pragma priority range referer sec-ch-ua sec-ch-ua-mobile "
    b"sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user te traceparent "
    b"upgrade-insecure-requests user-agent via x-csrftoken x-forwarded-for x-forwarded-host x-forwarded-proto "
    b"x-real-ip x-request-id x-requested-with"
).split()

_KEYS: Final = MappingProxyType(
    {name: "HTTP_" + name.decode("ascii").upper().replace("-", "_") for name in _COMMON}
    | {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
)

_LOGGED: Final = ((b"host", "HTTP_HOST"), (b"referer", "HTTP_REFERER"), (b"user-agent", "HTTP_USER_AGENT"))

_MOST_NAMES: Final = 1024
"""Names remembered beside the common ones, the latest used."""


def beginning(
    *,
    scheme: str,
    server: tuple[str, int | None] | None,
    root_path: str,
    tls: ssl.SSLObject | None,
    is_multithread: bool,
) -> dict[str, Any]:
    """Make what all environs begin with of connections that came the same way; the arguments are `Exchange.template`'s."""
    host, port = server or ("", None)
    if port is None:  # a Unix socket: neither name nor port may be empty
        host, port = "localhost", 443 if scheme == "https" else 80
    variables: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": root_path.encode().decode("latin-1"),
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "RAW_URI": "/",
        "REQUEST_URI": "/",
        "SERVER_NAME": f"[{host}]" if ":" in host else host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "prefork",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": EMPTY,
        "wsgi.input_terminated": True,
        "wsgi.multithread": is_multithread,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    if tls is not None:
        variables |= _tls_variables(tls)
    return variables


def own_of(client: Client) -> dict[str, Any]:
    """What is a connection's own in its environs."""
    return {**_client_variables(client), "wsgi.errors": ErrorStream()}


def _client_variables(client: Client) -> dict[str, str]:
    host, port = client or ("", None)
    # 0: a proxy knows the host only.
    return {"REMOTE_ADDR": host, "REMOTE_PORT": str(port)} if port else {"REMOTE_ADDR": host}


def environ_of(
    connection: Connection, method: str, target: Target, headers: list[tuple[bytes, bytes]]
) -> dict[str, Any]:
    """The environ of a request. `headers` have lower-case names. Runs in the worker."""
    environ = connection.template | connection.own
    aim(environ, method, target)
    expected = len(environ) + len(headers)
    for name, value in headers:
        environ[_KEYS.get(name) or _key_of(name)] = value.decode("latin-1")
    if len(environ) != expected or "" in environ:
        _join(environ, headers)
    return environ


def aim(environ: dict[str, Any], method: str, target: Target) -> None:
    """Tell of a request's first line."""
    path, raw_path, query = target
    environ["REQUEST_METHOD"] = method
    if _PERCENT in raw_path:
        path = unquote_to_bytes(raw_path).decode("latin-1")
    environ["PATH_INFO"] = path if path != "*" else "/"  # OPTIONS: a path begins with a slash (PEP 3333)
    uri = raw_path.decode("latin-1")
    environ["QUERY_STRING"] = said = query.decode("latin-1")
    environ["RAW_URI"] = environ["REQUEST_URI"] = f"{uri}?{said}" if query else uri


def _join(environ: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> None:
    """Put in order what comes several times, and take out what must not be there."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key = _KEYS.get(name) or _key_of(name)
        text = value.decode("latin-1")
        joined[key] = joined[key] + ("; " if name == b"cookie" else ",") + text if key in joined else text
    environ.update(joined)
    environ.pop("", None)


@lru_cache(_MOST_NAMES)
def _key_of(name: bytes) -> str:
    """The environ's key for a lower-case header name; the empty string for one that is dropped."""
    if b"_" in name or name == b"proxy":
        return ""
    return "HTTP_" + name.decode("latin-1").upper().replace("-", "_")


def set_origin(environ: dict[str, Any], origin: Origin) -> None:
    """Tell of a forwarded request where it came from; a trusted proxy says so."""
    environ.pop("REMOTE_PORT", None)
    environ.update(_client_variables(origin.client))
    environ["wsgi.url_scheme"] = origin.scheme
    if origin.scheme == "https":
        environ["HTTPS"] = "on"
    else:
        environ.pop("HTTPS", None)
    if origin.host is not None:
        environ["HTTP_HOST"] = origin.host.decode("latin-1")


def log_fields(environ: dict[str, Any]) -> LogFields:
    """What the access log says, as far as the application has left it there."""

    def said(key: str) -> bytes:
        return str(environ.get(key) or "").encode("latin-1", "replace")

    headers = [(name, said(key)) for name, key in _LOGGED if key in environ]
    method, client, scheme = (
        str(environ.get(key) or "") for key in ("REQUEST_METHOD", "REMOTE_ADDR", "wsgi.url_scheme")
    )
    return method, said("RAW_URI"), headers, client or None, scheme


def _tls_variables(tls: ssl.SSLObject) -> dict[str, str]:
    """As Apache's mod_ssl names them."""
    variables = {"HTTPS": "on", "SSL_PROTOCOL": tls.version() or "", "SSL_CLIENT_VERIFY": "NONE"}
    cipher = tls.cipher()
    if cipher is not None:
        variables["SSL_CIPHER"] = cipher[0]
    told = tls_extension(tls)["tls"]
    if told["client_cert_chain"]:
        variables["SSL_CLIENT_VERIFY"] = "SUCCESS"
        variables["SSL_CLIENT_CERT"] = told["client_cert_chain"][0]
        variables["SSL_CLIENT_S_DN"] = (told["client_cert_name"] or "").encode().decode("latin-1")
    return variables
