"""gunicorn's two suites for its ASGI worker against `prefork`: a plugin for pytest that starts ours where theirs starts Docker.

Both talk by clients (httpx, websockets) to applications in containers. Here the applications are served by the real command,
with two workers, one fleet for each; the fixture `docker_services`, which starts the containers, gives our addresses.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

LIMIT_S = 60.0

_APPS = MappingProxyType(
    {
        "django": "asgi:application",
        "fastapi": "app:app",
        "starlette": "app:app",
        "quart": "app:app",
        "litestar": "app:app",
        "blacksheep": "app:app",
    }
)
"""What theirs serves for each framework, in frameworks/NAME_app."""


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def serving(app: str, folder: Path, port: int, *flags: str) -> Iterator[None]:
    """`prefork APP` in a folder, until the block is over; ended by TERM."""
    command = [sys.executable, "-m", "prefork", app, "--bind", f"127.0.0.1:{port}", "--workers", "2"]
    command += ["--app-dir", str(folder), *flags]
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            _wait_until_it_serves(port, process)
            yield
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def _wait_until_it_serves(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT_S):
            return
        time.sleep(0.05)  # no event tells that a port is open
    raise RuntimeError(f"{process.args!r} does not serve")


@contextlib.contextmanager
def compliance() -> Iterator[dict[str, str]]:
    """The addresses of one fleet with all their applications, and of one over TLS; nothing stands for nginx."""
    folder = Path.cwd() / "asgi_compliance"
    pair = (
        "--certfile",
        str(folder / "certs" / "server.crt"),
        "--keyfile",
        str(folder / "certs" / "server.key"),
    )
    plain, tls = free_port(), free_port()
    with serving("apps.main_app:app", folder, plain), serving("apps.main_app:app", folder, tls, *pair):
        yield {
            "gunicorn_http": f"http://127.0.0.1:{plain}",
            "gunicorn_https": f"https://127.0.0.1:{tls}",
            "nginx_http": "http://127.0.0.1:1",
            "nginx_https": "https://127.0.0.1:1",
        }


@contextlib.contextmanager
def frameworks() -> Iterator[bool]:
    """A fleet for each framework, at the ports that their table names from then on."""
    (module,) = (
        each for name, each in sys.modules.items() if "conftest" in name and hasattr(each, "FRAMEWORKS")
    )
    with contextlib.ExitStack() as stack:
        for name, app in _APPS.items():
            port = module.FRAMEWORKS[name]["port"] = free_port()
            # Litestar's logging starts a thread as it is imported, which a fork would lose: prefork says so, and how.
            flags = ("--start-method", "exec") if name == "litestar" else ()
            stack.enter_context(serving(app, Path.cwd() / "frameworks" / f"{name}_app", port, *flags))
        yield True


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Any:
    """Put ours in the place of their `docker_services`, which stands in a conftest.py and so wins over a plugin's."""
    if fixturedef.argname != "docker_services":
        return None
    ours = frameworks() if (Path.cwd() / "frameworks").is_dir() else compliance()
    value = ours.__enter__()
    fixturedef.addfinalizer(lambda: ours.__exit__(None, None, None))
    fixturedef.cached_result = (value, fixturedef.cache_key(request), None)
    return value
