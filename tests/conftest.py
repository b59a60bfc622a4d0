"""What every test gets: an environment without prefork's own variables, logs as they were, Hypothesis's profile, scripts."""

from __future__ import annotations

import logging
import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: on a busy machine one slow example says nothing about the code.
settings.register_profile("prefork", deadline=None, print_blob=True)
settings.load_profile("prefork")

SERVICE_MANAGER_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC")


def pytest_sessionstart() -> None:
    """Ctrl-C is heard by those whom tests start, also where the suite was started in the background.

    A shell starts what it puts there with INT and QUIT ignored, and who is started by that one inherits it.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where fleets put their control sockets: not beside those of whoever runs the suite."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def untouched_logs() -> Iterator[None]:
    """Fail who leaves a logger quieter than it was: what a later test waits to read in the log would not be there."""
    before = _logs()
    yield
    after = _logs()
    assert {name: after[name] for name in before} == before


def _logs() -> dict[str, tuple[int, bool, bool]]:
    names = filter(_is_ours, logging.root.manager.loggerDict)
    loggers = [logging.root, *map(logging.getLogger, names)]
    return {x.name: (x.level, x.disabled, x.propagate) for x in loggers}


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "prefork"


@pytest.fixture(autouse=True)
def clean_environment(
    untouched_logs: None,  # before monkeypatch, so that it looks when that one has undone its own
    monkeypatch: pytest.MonkeyPatch,
    runtime_folder: Path,
) -> None:
    """No test is configured by the shell that runs the suite, nor thinks itself a child of prefork."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_folder))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    for name in list(os.environ):
        if name.startswith("PREFORK_") or name in SERVICE_MANAGER_VARIABLES:
            monkeypatch.delenv(name)


@pytest.fixture
def python_script(tmp_path: Path) -> Callable[..., Path]:
    """`python_script(source, name="script.py")`: the path of a module with that source, dedented."""

    def write(source: str, name: str = "script.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return write
