"""The collections: where each comes from, how it is read, and how all of its cases are told to a live server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from strangers import gunicorn_requests, http_parser_c, httparse_rs, lighttpd_c, live
from strangers.case import Case, difference, pieces, together
from strangers.sources import Source

INTERFACES: Final[tuple[live.Interface, ...]] = ("asgi", "wsgi")


@dataclass(frozen=True)
class Collection:
    """A collection of raw requests that a package carries."""

    source: Source
    read: Callable[[Path], list[Case]]
    about: str


COLLECTIONS: Final[Mapping[str, Collection]] = MappingProxyType(
    {
        "gunicorn": Collection(
            Source(
                "gunicorn",
                "27.0.1",
                "gunicorn-27.0.1.tar.gz",
                "b1514965361c8b7e8107a80aa2a92636878df1ccfac6dd204a676426e04d9e3e",
            ),
            gunicorn_requests.read,
            "gunicorn's requests, valid and invalid",
        ),
        "http-parser": Collection(
            Source(
                "httptools",
                "0.9.0",
                "httptools-0.9.0.tar.gz",
                "d484ebb7e3a3f3597b0f645fbd1b85633674ca808c1f5ba11c2caf7c66f5c8b6",
            ),
            http_parser_c.read,
            "node's http-parser, test.c",
        ),
        "httparse": Collection(
            Source(
                "librust-httparse-dev",
                "1.8.0-1",
                "librust-httparse-dev_1.8.0-1_amd64.deb",
                "8e82aac3e77e6789482d4e4121aa0582adbc1621fceea0b44e7f2a1659c15366",
                "Debian",
            ),
            httparse_rs.read,
            "hyper's httparse, lib.rs and uri.rs",
        ),
        "lighttpd": Collection(
            Source(
                "lighttpd",
                "1.4.69-1",
                "lighttpd_1.4.69.orig.tar.xz",
                "16ac8db95e719629ba61949b99f8a26feba946a81d185215b28379bb4116b0b4",
                "Debian's sources",
            ),
            lighttpd_c.read,
            "lighttpd's heads of requests, test_request.c",
        ),
    }
)


def tell(cases: Iterable[Case]) -> dict[str, str]:
    """Tell all cases to live servers, each four ways: how those differ that differ, by name.

    Serves on loopback, in threads of this process; some seconds for hundreds of cases.
    """
    alike: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        alike[repr(sorted(case.options.items()))].append(case)
    found: defaultdict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for group in alike.values():
        for interface in INTERFACES:
            with live.serving(interface, group[0].options) as server:
                for case in group:
                    for way, parts in pieces(case.raw).items():
                        found[case.name][interface, way] = difference(case, server.tell(parts))
    differing = {name: together(ways) for name, ways in found.items()}
    return {name: said for name, said in differing.items() if said}
