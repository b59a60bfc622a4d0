"""The command at its work: each server, TLS, several addresses, a log file; and what it says of itself."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path

import httpx
import pytest

from prefork import __version__
from prefork.options import CommandOptions, FleetOptions
from tests.process.apps import GOOD, Site, ask, pid_of, serving, wait_until_ready
from tests.process.harness import Fleet, free_port, run_to_end, wait_until
from tests.process.library import make_certificate, places

AIOHTTP = """
    import os
    from aiohttp import web

    async def hello(request):
        return web.Response(text=f"pid {os.getpid()}")

    def make():
        app = web.Application()
        app.add_routes([web.get("/", hello)])
        return app

    app = make()
    """
WSGI = """
    import os
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"pid %d" % os.getpid()]
    """


@pytest.mark.parametrize("method", ["fork", "exec"])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (GOOD, ()),
        (GOOD, ("--server", "uvicorn")),
        (GOOD, ("--server", "hypercorn")),
        (GOOD, ("--interface", "asgi")),
        (GOOD, ("--interface", "asgi", "--server", "hypercorn")),
        (WSGI, ()),
        (WSGI, ("--server", "waitress")),
        (WSGI, ("--interface", "wsgi")),
        (AIOHTTP, ("--server", "aiohttp")),
    ],
    ids=lambda value: " ".join(value) or "auto" if isinstance(value, tuple) else value.split()[1],
)
def test_each_server_serves_and_stops(
    fleet_of: Callable[..., Fleet], tmp_path: Path, source: str, words: tuple[str, ...], method: str
) -> None:
    """Chosen or found out; a request is answered by one of the workers, and TERM ends it with status 0."""
    site = Site(tmp_path)
    site.write(source)
    fleet = fleet_of(*site.serving(*words, "--start-method", method))
    workers = wait_until_ready(fleet)
    assert pid_of(ask(fleet)) in workers
    assert fleet.stop() == 0
    assert "Traceback" not in fleet.output
    fleet.assert_nothing_left()


ANSWERS_EVERYTHING = """
    import os
    async def app(scope, receive, send):
        TAKES
        body = b"pid %d" % os.getpid()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
    """


@pytest.mark.parametrize("takes", ["pass", "await receive()"], ids=["blind", "reads first"])
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_an_application_that_never_looks_at_its_scope(
    fleet_of: Callable[..., Fleet], tmp_path: Path, server: str, takes: str
) -> None:
    """The shortest hello-world there is: it knows no lifespan, and is served without."""
    site = Site(tmp_path)
    site.write(ANSWERS_EVERYTHING.replace("TAKES", takes))
    fleet = fleet_of(*site.serving("--server", server))
    workers = wait_until_ready(fleet)
    assert pid_of(ask(fleet)) in workers


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("def make():\n    return app\n", "site_app:make", ()),
        (
            "class Settings:\n    @staticmethod\n    def make():\n        return app\n",
            "site_app:Settings.make",
            (),
        ),
    ],
)
def test_a_factory_makes_the_application(
    fleet_of: Callable[..., Fleet], tmp_path: Path, source: str, target: str, words: tuple[str, ...]
) -> None:
    """Called without arguments, once, before the workers are made."""
    site = Site(tmp_path)
    site.write_good()
    module = tmp_path / "site_app.py"
    module.write_text(module.read_text() + "\n" + source)
    arguments = [target, *site.serving("--factory", *words)[1:]]
    fleet = fleet_of(*arguments)
    workers = wait_until_ready(fleet)
    assert pid_of(ask(fleet)) in workers


def test_the_application_is_looked_for_where_one_stands(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """Without --app-dir: in the current directory, as one is used to."""
    Site(tmp_path)
    fleet = fleet_of("site_app:app", "--bind", "127.0.0.1:0", "--workers", "2", cwd=tmp_path)
    wait_until_ready(fleet)
    assert ask(fleet).startswith("first")


def test_the_number_of_workers_is_that_of_the_usable_cpus(fleet_of: Callable[..., Fleet]) -> None:
    """Without --workers; here held to one CPU by its affinity."""
    words = serving("web")
    words[words.index("--workers") : words.index("--workers") + 2] = []
    fleet = Fleet(["taskset", "--cpu-list", "0", sys.executable, "-m", "prefork", *words])
    with fleet:
        wait_until_ready(fleet, 1)
        assert fleet.stop() == 0


# -- TLS ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "words", "version"),
    [
        ("web", ("--server", "hypercorn"), "HTTP/2"),
        ("web", (), "HTTP/1.1"),
        ("wsgi", (), "HTTP/1.1"),
    ],
)
def test_tls(
    fleet_of: Callable[..., Fleet], tmp_path: Path, app: str, words: tuple[str, ...], version: str
) -> None:
    """A client that checks the certificate is served, over the best protocol that the server speaks."""
    cert, key, authority = make_certificate(tmp_path)
    fleet = fleet_of(*serving(app, "--certfile", str(cert), "--keyfile", str(key), *words))
    workers = wait_until_ready(fleet)
    assert fleet.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(authority))
    with httpx.Client(http2=True, verify=context, trust_env=False) as client:
        answer = client.get(fleet.url + "/")
    assert answer.http_version == version
    assert pid_of(answer.text) in workers
    assert fleet.stop() == 0


# -- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["web", "wsgi"])
@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_several_addresses_at_once(
    fleet_of: Callable[..., Fleet], tmp_path: Path, app: str, sharing: tuple[str, ...]
) -> None:
    """IPv4, IPv6 and a Unix socket: every worker serves all of them."""
    path = tmp_path / "socket"
    fleet = fleet_of(*serving(app, *sharing, "--bind", "[::1]:0", "--bind", f"unix:{path}"))
    workers = wait_until_ready(fleet)
    served = places(fleet)
    assert [place.partition(":")[0] for place in served] == ["http", "http", "unix"]
    for place in served:
        is_unix = place.startswith("unix:")
        transport = httpx.HTTPTransport(uds=str(path) if is_unix else None)
        with httpx.Client(transport=transport, trust_env=False) as client:
            answer = client.get("http://localhost/" if is_unix else place + "/")
        assert pid_of(answer.text) in workers
    assert fleet.stop() == 0
    assert not path.exists()


# -- what it says -------------------------------------------------------------------------------------


def test_a_log_file_takes_all_that_is_logged(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Standard error is left to the application's own words."""
    log = tmp_path / "log"
    fleet = fleet_of(*serving("web", "--log-file", str(log), bind=f"127.0.0.1:{free_port()}"))
    wait_until(lambda: log.exists() and "ready: 2 workers" in log.read_text(), "the log says ready")
    assert fleet.stop() == 0
    text = log.read_text()
    assert re.search(r"\[master \d+\] .*serving http://127.0.0.1:\d+ with 2 workers", text)
    assert "stopping (graceful): SIGTERM" in text
    assert not fleet.lines


def test_only_what_matters_is_logged_if_asked_for(fleet_of: Callable[..., Fleet]) -> None:
    """--log-level error: a healthy life is silent."""
    port = free_port()
    fleet = fleet_of(*serving("web", "--log-level", "error", bind=f"127.0.0.1:{port}"))

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).is_success
        except httpx.TransportError:
            return False

    wait_until(answers, "it serves")
    assert fleet.stop() == 0
    assert not fleet.lines


def test_the_version() -> None:
    """One line, and nothing is started."""
    assert run_to_end("--version") == (0, f"prefork {__version__}")


def test_the_help_names_every_option() -> None:
    """Each is there, with its meaning."""
    status, output = run_to_end("--help")
    assert status == 0
    words = " ".join(output.split())
    for option in (*fields(CommandOptions), *fields(FleetOptions)):
        if flag := option.metadata.get("flag"):
            assert flag in words
            assert " ".join(option.metadata["help"].split())[:40] in words
    assert run_to_end("-h") == (status, output)


def test_the_console_script_is_the_same_command() -> None:
    """`prefork` and `python -m prefork` are one."""
    (script,) = entry_points(group="console_scripts", name="prefork")
    assert script.value == "prefork.cli.serve:main"
    path = Path(sysconfig.get_path("scripts")) / "prefork"
    by_name = subprocess.run([path, "--version"], check=True, capture_output=True, text=True, timeout=30)
    assert by_name.stdout.strip() == f"prefork {__version__}"
