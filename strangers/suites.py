"""Strangers' suites: which package each comes from, how it is run, and what of it is left out and why.

Each is run by its own runner in the environment build/strangers/venv (`requirements/strangers.txt`), in the folder of its
package, with a module of `stand_ins` that puts our server in the place of theirs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from strangers.catalogue import COLLECTIONS
from strangers.results import Results, of_junit, of_unittest
from strangers.sources import STORE, NotToBeHadError, Source

ROOT: Final = Path(__file__).parents[1]
PYTHON: Final = STORE / "venv" / "bin" / "python"
_LIMIT_S: Final = 400

_STARLETTE: Final = "not trio and not invalid_dir_permissions"
_UVICORN: Final = (
    "websockets-sansio and httptools and not keepalive and not after_close_handshake and not lifespan_state"
)
_ASYNCIO: Final = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")


@dataclass(frozen=True)
class Suite:
    """A suite that talks to a server."""

    source: Source
    about: str
    stand_in: str
    folder: str
    """Where it is run, within the package."""
    words: tuple[str, ...]
    """What its runner is told."""
    left_out: str
    """What of it is not run, and why."""
    is_django: bool = False

    def run(self) -> Results:
        """Run it to its end. Raises NotToBeHadError where it cannot be run at all."""
        if not PYTHON.exists():
            raise NotToBeHadError(f"there is no {PYTHON}: make strangers")
        folder = self.source.folder() / self.folder
        junit = STORE / f"{self.stand_in}-{os.getpid()}.xml"
        if self.is_django:
            command = [str(PYTHON), str(ROOT / "strangers" / "stand_ins" / f"{self.stand_in}.py")]
        else:
            command = [str(PYTHON), "-m", "pytest", "-q", "-p", f"strangers.stand_ins.{self.stand_in}"]
            command += [f"--junitxml={junit}", "--timeout", "60", "-o", "addopts=", "-p", "no:cacheprovider"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                [*command, *self.words],
                cwd=folder,
                env=env,
                check=False,
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise NotToBeHadError(f"{self.source}: its suite was not over after {_LIMIT_S} s") from error
        if self.is_django:
            return of_unittest(done.stderr + done.stdout)
        if not junit.exists():
            raise NotToBeHadError(
                f"{self.source}: its suite does not start: {(done.stderr or done.stdout)[-400:]}"
            )
        try:
            return of_junit(junit.read_text())
        finally:
            junit.unlink()


SUITES: Final[Mapping[str, Suite]] = MappingProxyType(
    {
        "gunicorn-asgi": Suite(
            COLLECTIONS["gunicorn"].source,
            "gunicorn's ASGI compliance suite: HTTP, WebSocket, streams, lifespan, TLS, by httpx and websockets",
            "gunicorn_asgi",
            "tests/docker",
            ("asgi_compliance", *_ASYNCIO, "--ignore=asgi_compliance/test_http2_asgi.py", "-k", "not proxy"),
            "38 tests of HTTP/2, which prefork leaves to `--server hypercorn`; 26 that ask through nginx in its container",
        ),
        "gunicorn-frameworks": Suite(
            COLLECTIONS["gunicorn"].source,
            "gunicorn's framework suite: the same questions to Django, FastAPI, Starlette, Quart, Litestar, BlackSheep",
            "gunicorn_asgi",
            "tests/docker/asgi_framework_compat",
            ("tests", *_ASYNCIO),
            "",
        ),
        "starlette": Suite(
            Source(
                "starlette",
                "1.10.0",
                "starlette-1.10.0.tar.gz",
                "b8399098d4c1e3522734f7235dc79b1fc967f96cf139c81e0fa30479e0685f9b",
            ),
            "Starlette's own tests, its TestClient over a real socket",
            "starlette_client",
            ".",
            ("tests", "-p", "no:asyncio", "--ignore=tests/test_testclient.py", "-k", _STARLETTE),
            "test_testclient.py, which tests the client itself; the half that repeats every test on trio; one that must not "
            "be run as root",
        ),
        "django": Suite(
            Source(
                "django",
                "5.2.19",
                "django-5.2.19.tar.gz",
                "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1",
            ),
            "Django's tests of its live server, with ours as `server_class`",
            "django_live",
            "tests",
            (
                *("servers.tests", "servers.test_liveserverthread", "staticfiles_tests.test_liveserver"),
                *("file_storage.tests.FileLikeObjectTestCase", "--parallel", "1", "-v", "2"),
            ),
            "servers.test_basehttp, which tests Django's own server from within; what needs a browser",
            is_django=True,
        ),
        "uvicorn": Suite(
            Source(
                "uvicorn",
                "0.54.0",
                "uvicorn-0.54.0.tar.gz",
                "a2e33cbfaa0306f8e6b0c13e0cb89d7d7a2da3e62b90c66e18c33d9807b28620",
            ),
            "uvicorn's tests of WebSockets, by websockets and httpx",
            "uvicorn_server",
            ".",
            ("tests/protocols/test_websocket.py", "-p", "no:asyncio", "-k", _UVICORN),
            "what repeats a test for another of uvicorn's parsers; four tests that look into its protocol objects, one of "
            "its lifespan's",
        ),
        "daphne": Suite(
            Source(
                "daphne",
                "4.2.3",
                "daphne-4.2.3.tar.gz",
                "1c458f81926b37301cadc8ec1b6316d9a5db53fba061fc4826610395fe5d5c81",
            ),
            "Daphne's tests of requests, answers and WebSockets, made up by Hypothesis",
            "daphne_server",
            ".",
            (
                *("tests/test_http_request.py", "tests/test_http_response.py", "tests/test_http_protocol.py"),
                *("tests/test_websocket.py", "-p", "no:asyncio", "-k", "not application_checker"),
            ),
            "its command line, its packaging and its helpers, which are no server's; one test whose application stops "
            "Twisted's reactor",
        ),
    }
)
