"""The command when the application does not start: status 3, why in one line, the application's traceback once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.process.apps import GOOD, Site
from tests.process.harness import run_to_end

METHODS = pytest.mark.parametrize("method", ["fork", "exec"])
FAILED = 3
OVER_RECOVERY = 4

OWN_CODE_RAISES = {
    "import raises": (
        "def load():\n    raise RuntimeError('broken on purpose')\nload()\n",
        r"module 'site_app' raises RuntimeError: broken on purpose",
        r"^RuntimeError: broken on purpose",
    ),
    "import of something missing": (
        "import nowhere_to_be_found\n",
        r"module 'site_app' raises ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        r"^ModuleNotFoundError: ",
    ),
    "import exits": (
        "import sys\nsys.exit('not today')\n",
        r"module 'site_app' exits \(SystemExit: not today\)",
        r"^SystemExit: not today",
    ),
    "does not parse": ("def app(:\n", r"module 'site_app' raises SyntaxError: ", r"^SyntaxError: "),
    "lifespan raises": (
        "async def app(scope, receive, send):\n    await receive()\n    raise RuntimeError('broken on purpose')\n",
        r"the application failed to start: RuntimeError: broken on purpose",
        r"^RuntimeError: broken on purpose",
    ),
    "lifespan exits": (
        "import sys\nasync def app(scope, receive, send):\n    await receive()\n    sys.exit('not today')\n",
        r"the application failed to start: SystemExit: not today",
        r"^SystemExit: not today",
    ),
}
WORDS_ARE_WRONG = {
    "no such module": (GOOD, "no_such_module:app", r"module 'no_such_module' not found in .*--app-dir"),
    "no such submodule": (
        GOOD,
        "site_app.sub:app",
        r"module 'site_app\.sub' not found|raises ModuleNotFound",
    ),
    "no such attribute": (GOOD, "site_app:application", r"has no attribute 'application': it has app"),
    "not callable": ("app = 5\n", "site_app:app", r"site_app:app is not callable \(int\)"),
}


WAITS = "import time\ndef wait_for_ever():\n    time.sleep(1000)\n"


def _start(site: Site, target: str, *extra: str) -> tuple[int, str]:
    words = ["--app-dir", str(site.folder), "--bind", "127.0.0.1:0", "--workers", "4"]
    return run_to_end(target, *words, *extra)


def _said(pattern: str, output: str) -> list[str]:
    return [line for line in output.splitlines() if re.search(pattern, line)]


def _assert_nothing_of_ours(output: str) -> None:
    """No frame of prefork, of the server that runs the application, or of the import system."""
    frames = re.findall(r'File "([^"]+)"', output)
    strangers = [frame for frame in frames if "site_app" not in frame]
    assert not strangers, output


@METHODS
@pytest.mark.parametrize("case", OWN_CODE_RAISES)
def test_what_the_application_raises_is_told_once(tmp_path: Path, case: str, method: str) -> None:
    """One line says why; the traceback comes once, for four workers, and begins in the application."""
    source, why, traceback_end = OWN_CODE_RAISES[case]
    site = Site(tmp_path)
    site.write(source)
    status, output = _start(site, "site_app:app", "--start-method", method)
    assert status == FAILED, output
    # Under "exec" workers fail side by side, and each that was started by then says so in its one line.
    assert len(_said(r" error .*" + why, output)) == 1 or method == "exec", output
    assert _said(r" error .*" + why, output), output
    if traceback_end is not None:
        assert len(_said(traceback_end, output)) == 1, output
    assert output.count("Traceback (most recent call last)") <= 1, output
    _assert_nothing_of_ours(output)


@METHODS
@pytest.mark.parametrize("case", WORDS_ARE_WRONG)
def test_what_is_not_there_is_told_without_a_traceback(tmp_path: Path, case: str, method: str) -> None:
    """The words on the command line are wrong, or the application gave no reason: a line is enough."""
    source, target, why = WORDS_ARE_WRONG[case]
    site = Site(tmp_path)
    site.write(source)
    status, output = _start(site, target, "--start-method", method)
    assert status == FAILED, output
    assert _said(r" error .*(" + why + ")", output), output
    assert "Traceback" not in output or case == "no such submodule"


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        pytest.param(
            "exec",
        ),
    ],
)
def test_what_is_no_application_is_told_in_one_line(tmp_path: Path, method: str) -> None:
    """It can be called, and is neither ASGI nor WSGI: final, and no traceback of ours."""
    site = Site(tmp_path)
    site.write("def app():\n    pass\n")
    words = ("--start-method", method, "--recover-threshold", "2")
    status, output = _start(site, "site_app:app", *words)
    assert status == FAILED, output
    assert _said(r" error .*takes no arguments: if it makes the application, use --factory", output), output
    assert "Traceback" not in output


@pytest.mark.parametrize(("method", "status"), [("fork", FAILED), ("exec", OVER_RECOVERY)])
def test_a_process_that_ends_without_a_word(tmp_path: Path, method: str, status: int) -> None:
    """os._exit at import: a zygote's end is final; a program's, where each worker is one, is a crash that is counted."""
    site = Site(tmp_path)
    site.write("import os; os._exit(0)\n")
    words = ("--start-method", method, "--recover-threshold", "2")
    assert _start(site, "site_app:app", *words)[0] == status


def test_a_lifespan_that_refuses_says_why_in_its_own_words(tmp_path: Path) -> None:
    """lifespan.startup.failed carries a message: that is the reason, and there is no traceback to show."""
    site = Site(tmp_path)
    site.write("""
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "the database is not there"})
        """)
    status, output = _start(site, "site_app:app")
    assert status == FAILED, output
    assert _said(r" error .*the database is not there", output), output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "source",
    [
        WAITS + "wait_for_ever()\n",
        WAITS + "async def app(scope, receive, send):\n    wait_for_ever()\n",
    ],
    ids=["import", "lifespan"],
)
@METHODS
def test_a_boot_that_hangs_ends_at_its_timeout(tmp_path: Path, source: str, method: str) -> None:
    """It is not tried again; the log says how long it was waited for, and where it stood."""
    site = Site(tmp_path)
    site.write(source)
    status, output = _start(
        site, "site_app:app", "--boot-timeout", "8", "--workers", "1", "--start-method", method
    )
    assert status == FAILED, output
    assert _said(r" error .*within 8 s", output), output
    assert _said(r'site_app.py", line 3 in wait_for_ever', output), output


def test_a_coroutine_that_hangs_in_its_lifespan_ends_at_its_timeout(tmp_path: Path) -> None:
    """Nothing blocks, and no stack leads to it: the time-out alone says so."""
    site = Site(tmp_path)
    site.write("""
        import asyncio
        async def app(scope, receive, send):
            await asyncio.Event().wait()
        """)
    status, output = _start(site, "site_app:app", "--boot-timeout", "5")
    assert status == FAILED, output
    assert _said(r"not ready within 5 s", output), output


FACTORIES = {
    "raises": (
        "def make():\n    raise RuntimeError('no settings')\n",
        r"the factory site_app:make raises RuntimeError: no settings",
        True,
    ),
    "exits": ("def make():\n    raise SystemExit(4)\n", r"the factory site_app:make exits", True),
    "gives nothing": ("def make():\n    pass\n", r"site_app:make is not callable \(NoneType\)", False),
    "is no function": ("make = 5\n", r"site_app:make is int and cannot be called", False),
}


@pytest.mark.parametrize("case", FACTORIES)
def test_a_factory_that_fails(tmp_path: Path, case: str) -> None:
    """The factory is the application's own code: its traceback is told, its mistakes are named."""
    source, why, has_traceback = FACTORIES[case]
    site = Site(tmp_path)
    site.write(source)
    status, output = _start(site, "site_app:make", "--factory")
    assert status == FAILED, output
    assert len(_said(r" error .*" + why, output)) == 1, output
    assert output.count("Traceback (most recent call last)") == has_traceback, output
    _assert_nothing_of_ours(output)


@pytest.mark.parametrize(
    ("source", "server", "why"),
    [
        (GOOD, "waitress", r"waitress serves WSGI applications, and this one is ASGI"),
        ("def app(environ, start_response):\n    return []\n", "uvicorn", r"uvicorn serves ASGI"),
        ("def app(environ, start_response):\n    return []\n", "hypercorn", r"hypercorn serves ASGI"),
        pytest.param(
            "def app():\n    return 5\n",
            "aiohttp",
            r"aiohttp.web.Application",
        ),
    ],
)
def test_a_server_that_does_not_fit_the_application(
    tmp_path: Path, source: str, server: str, why: str
) -> None:
    """Which server was asked for, and what the application is, in one line."""
    site = Site(tmp_path)
    site.write(source)
    status, output = _start(site, "site_app:app", "--server", server)
    assert status in (2, FAILED), output
    assert _said(why, output), output
    assert not re.search(r"/prefork/\S+\.py", output), output
