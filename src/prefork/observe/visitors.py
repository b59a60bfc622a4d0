"""Who may look, of those who reach the admin process: not the pages of strangers in somebody's browser. Pure.

* **Host.** A page of evil.example may have its own name point to 127.0.0.1 (DNS rebinding) and then ask us as its own. Its
  requests carry its name, so we are only asked by addresses, "localhost", this machine's name, and names that were given.
* **Sec-Fetch-Site, Origin.** A page elsewhere may ask across, and could learn by timing, or embed. Browsers say so; such
  requests are refused, but for one that opens the page itself (a link in a wiki; a frame, which its CSP decides on).
* **Methods.** There is nothing here that changes anything, so there is nothing but GET and HEAD.

Whether somebody is healthy or ready is told to anybody who gets here: it is one word, and load balancers ask by any name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
PAGE: Final = "/"
_OWN_SITE: Final = frozenset({"", "none", "same-origin"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody is not answered."""

    status: int
    why: str


def refusal(
    method: str, path: str, headers: Mapping[str, str], names: Collection[str], *, is_tcp: bool = True
) -> Refusal | None:
    """Why this request is not answered; None if it is.

    Args:
        method: of the request.
        path: of the request, without its query.
        headers: by lower-case name.
        names: by which we may be asked, in lower case, besides addresses and localhost.
        is_tcp: it came over the network; over a Unix socket no browser comes.
    """
    if method not in ("GET", "HEAD"):
        return Refusal(405, "there is nothing here to change: GET and HEAD only")
    if path in OPEN_PATHS or not is_tcp:
        return None
    host = headers.get("host", "")
    if not is_known(host_of(host), names):
        return Refusal(
            403, f"not by this name ({host or 'none'}): ask by address, or allow it with --admin-host"
        )
    if headers.get("sec-fetch-site", "") not in _OWN_SITE and not (
        path == PAGE and headers.get("sec-fetch-mode") == "navigate"
    ):
        return Refusal(403, "not for pages of other sites")
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return Refusal(403, "not for pages of other sites")
    return None


def host_of(host: str) -> str:
    """The name, or the address, of a Host header, without the port: "[::1]:80" is "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def is_known(name: str, names: Collection[str]) -> bool:
    """Whether we may be asked by this name."""
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def frame_ancestors(host: str, addresses: Collection[str]) -> str:
    """Who may show the dashboard in a frame: what this fleet serves itself, at the host that the admin was asked by.

    Args:
        host: the Host header of the request for the page.
        addresses: what the fleet serves: "http://0.0.0.0:8080".
    """
    name = host_of(host)
    shown = f"[{name}]" if ":" in name else name
    sources = []
    for address in addresses:
        scheme, is_url, rest = address.partition("://")
        port = rest.rpartition(":")[2].strip("/")
        if is_url and scheme in ("http", "https") and port.isdecimal() and is_plain(name):
            sources.append(f"{scheme}://{shown}:{port}")
    return " ".join(["'self'", *dict.fromkeys(sources)])


def is_plain(name: str) -> bool:
    """Whether a name can stand in a header's value as it is."""
    return bool(name) and all(character.isalnum() or character in ".-:_" for character in name)
