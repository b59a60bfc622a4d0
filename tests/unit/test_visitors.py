"""Who may look at the admin process: not the pages of strangers in somebody's browser."""

from __future__ import annotations

import pytest

from prefork.errors import ConfigError
from prefork.observe.binding import admin_address
from prefork.observe.visitors import frame_ancestors, refusal

NAMES = ("web-1", "admin.example")


def status(path: str = "/status.json", method: str = "GET", *, is_tcp: bool = True, **headers: str) -> int:
    """The status of the refusal; 200 where there is none."""
    given = {name.replace("_", "-"): value for name, value in {"host": "127.0.0.1:9090", **headers}.items()}
    found = refusal(method, path, given, NAMES, is_tcp=is_tcp)
    return 200 if found is None else found.status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9090",
        "[::1]:9090",
        "10.0.0.7",
        "localhost:9090",
        "LOCALHOST",
        "x.localhost",
        "web-1:9090",
        "admin.example",
    ],
)
def test_by_these_names_it_may_be_asked(host: str) -> None:
    """Addresses, localhost, this machine's name, and names that were given."""
    assert status(host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:9090",
        "",
        "127.0.0.1.evil.example",
        "web-1.evil.example",
        "localhost.evil.example",
        "[evil]:1",
    ],
)
def test_by_these_it_may_not(host: str) -> None:
    """A stranger's page may have its name point here."""
    assert status(host=host) == 403
    assert status("/", host=host) == 403
    assert status("/metrics", host=host) == 403


def test_health_is_told_to_anybody() -> None:
    """Load balancers ask by any name, and it is one word."""
    assert status("/healthz", host="evil.example") == 200
    assert status("/readyz", host="evil.example", sec_fetch_site="cross-site") == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "new-kind"])
@pytest.mark.parametrize("mode", ["cors", "no-cors", "navigate"])
def test_pages_elsewhere_may_not_ask(site: str, mode: str) -> None:
    """Not for data, whatever they call it."""
    assert status(sec_fetch_site=site, sec_fetch_mode=mode) == 403
    assert status("/metrics", sec_fetch_site=site, sec_fetch_mode=mode) == 403


def test_a_link_may_lead_here() -> None:
    """To the page, which then asks by itself."""
    assert status("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200
    assert status("/", sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert status(sec_fetch_site="same-origin", sec_fetch_mode="cors") == 200
    assert status(sec_fetch_site="none", sec_fetch_mode="navigate") == 200


def test_an_origin_that_is_not_ours() -> None:
    """Of browsers that do not say where a request comes from."""
    assert status(origin="http://127.0.0.1:9090") == 200
    assert status(origin="http://127.0.0.1:8080") == 403
    assert status(origin="null") == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_there_is_nothing_to_change(method: str) -> None:
    """Nor anything to ask beforehand (CORS)."""
    assert status(method=method) == 405
    assert status("/healthz", method) == 405


def test_no_browser_comes_over_a_unix_socket() -> None:
    """Whatever name the client thinks of."""
    assert status(host="anything", is_tcp=False) == 200


def test_what_the_fleet_serves_itself_may_frame_the_page() -> None:
    """At the host that it was asked by, and nobody else."""
    serves = ("http://0.0.0.0:8080", "https://[::]:8443", "unix:/run/app.sock")
    assert frame_ancestors("127.0.0.1:9090", serves) == "'self' http://127.0.0.1:8080 https://127.0.0.1:8443"
    assert frame_ancestors("[::1]:9090", serves) == "'self' http://[::1]:8080 https://[::1]:8443"
    assert frame_ancestors("localhost:9090", ()) == "'self'"
    assert frame_ancestors("x; script-src *:1", serves) == "'self'"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("9090", "http://127.0.0.1:9090"),
        (":9090", "http://127.0.0.1:9090"),
        ("0.0.0.0:9090", "http://0.0.0.0:9090"),
        ("[::1]:9090", "http://[::1]:9090"),
        ("unix:/run/admin.sock", "unix:/run/admin.sock"),
    ],
)
def test_where_it_listens(text: str, url: str) -> None:
    """On loopback, unless somebody says otherwise."""
    assert admin_address(text).url(tls=False) == url


def test_an_address_that_is_none() -> None:
    """Is told by the option's name."""
    with pytest.raises(ConfigError, match="admin: "):
        admin_address("nonsense")
