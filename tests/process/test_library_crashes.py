"""Workers that crash: back-off, the threshold and its window, exit codes, and who is told what."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.harness import Fleet
from tests.process.library import ask, ready_workers, run

Script = Callable[..., Path]

AT_START = """
    from prefork import Prefork
    from story import *

    def broken(listener):
        raise RuntimeError("the database is away")

    async def broken_coroutine(listener):
        raise RuntimeError("the database is away")

    ENDS = {"raises": broken, "coroutine": broken_coroutine, "returns": lambda listener: None,
            "exits": lambda listener: sys.exit(5), "exits-with-words": lambda listener: sys.exit("no licence found"),
            "vanishes": lambda listener: os._exit(6), "aborts": lambda listener: os.kill(os.getpid(), 9)}
    tell(lambda: Prefork(serve_func=ENDS[sys.argv[2]], workers=1, start_method=METHOD, recover_threshold=3,
                         recover_interval_s=0.02).listen_and_serve(ANY_PORT))
"""


def delays_s(fleet: Fleet) -> list[float]:
    return [float(match[1]) for match in fleet.find_all(r"worker 0: next start in (\S+) s")]


@pytest.mark.parametrize(
    ("method", "end", "reason"),
    [
        ("fork", "raises", "the server raised RuntimeError: the database is away"),
        ("exec", "raises", "the server raised RuntimeError: the database is away"),
        ("fork", "coroutine", "the server raised RuntimeError: the database is away"),
        ("fork", "returns", "exit status 0 before it was ready"),
        ("fork", "exits", "exit status 5 before it was ready"),
        ("fork", "vanishes", "exit status 6 before it was ready"),
        ("fork", "aborts", "killed by signal 9 before it was ready"),
    ],
)
def test_a_crash_loop_at_the_start_ends(python_script: Script, method: str, end: str, reason: str) -> None:
    """Three are recovered from, with growing delays; the fourth ends the master. The traceback is told once."""
    with run(python_script(AT_START), method, end) as fleet:
        fleet.wait_for("raised OverRecoveryError: 4 crashes within 60 s exceed the recover threshold of 3")
        assert fleet.wait() == 0
        assert len(fleet.find_all(re.escape(reason))) == 4
        delays = delays_s(fleet)
        assert len(delays) == 3
        assert delays[0] >= 0.02
        assert delays == sorted(delays)
        assert delays[2] >= 0.08
        traced = 1 if end in ("raises", "coroutine") else 0
        assert len(fleet.find_all("^RuntimeError: the database is away")) == traced
        fleet.assert_nothing_left()


def test_last_words_are_not_lost(python_script: Script) -> None:
    """`sys.exit("words")`, which Python prints, is as good as an exception: the words are in the log."""
    with run(python_script(AT_START), "fork", "exits-with-words") as fleet:
        fleet.wait_for("raised OverRecoveryError")
        assert fleet.wait() == 0
        assert "no licence found" in fleet.output
        assert "exit status 1 before it was ready" in fleet.output


IN_SERVICE = """
    import json
    from prefork import Prefork
    from story import *

    options = json.loads(sys.argv[2])
    tell(lambda: Prefork(serve_func=serve, workers=2, start_method=METHOD, **options, **hooks())
         .listen_and_serve(ANY_PORT))
"""


@pytest.mark.parametrize(
    ("method", "words", "status"),
    [
        ("fork", ("exit", "5"), "exit status 5"),
        ("fork", ("vanish", "6"), "exit status 6"),
        ("fork", ("raise", "in-service"), "exit status 1"),
        ("fork", ("exit", "0"), "exit status 0"),
        ("exec", ("exit", "5"), "exit status 5"),
        ("exec", ("raise", "in-service"), "exit status 1"),
    ],
)
def test_how_a_worker_ended_is_told(
    python_script: Script, method: str, words: tuple[str, ...], status: str
) -> None:
    """Its exit status is in the log, its traceback too; it is replaced, and the replacement serves."""
    options = '{"recover_threshold": 5, "recover_interval_s": 0.01}'
    with run(python_script(IN_SERVICE), method, options) as fleet:
        ready_workers(fleet, 2)
        assert ask(fleet, *words) == ""
        match = fleet.wait_for(
            r"worker \d .pid (\d+)\b.* (crashed|left by itself): (exit status \d+)", since=0
        )
        assert match[3] == status
        fleet.wait_for(rf"master: recover {match[1]} \d+", since=0)
        assert len(set(ready_workers(fleet, 3))) == 3
        assert int(ask(fleet, "pid")) != int(match[1])
        assert ("RuntimeError: in-service" in fleet.output) == (words[0] == "raise")
        assert fleet.stop() == 0


def test_too_many_crashes_in_service_end_the_master(python_script: Script) -> None:
    """The default for two workers is one: the second crash is raised, and the sibling is stopped in peace."""
    with run(python_script(IN_SERVICE), "fork", '{"recover_interval_s": 0.01}') as fleet:
        first, _ = ready_workers(fleet, 2)
        fleet.kill(first)
        third = ready_workers(fleet, 3)[2]
        fleet.kill(third)
        fleet.wait_for("raised OverRecoveryError: 2 crashes within 60 s exceed the recover threshold of 1")
        assert fleet.wait() == 0
        fleet.wait_for("stopped: exit status 0", since=0)
        fleet.assert_nothing_left()


def test_threshold_zero_recovers_from_nothing(python_script: Script) -> None:
    """As the seed's zero value: the first crash is the last."""
    with run(python_script(IN_SERVICE), "fork", '{"recover_threshold": 0}') as fleet:
        fleet.kill(ready_workers(fleet, 2)[0])
        fleet.wait_for("raised OverRecoveryError: 1 crashes")
        assert fleet.wait() == 0
        assert not fleet.find_all("master: recover")


def test_crashes_are_forgotten_when_the_window_has_passed(python_script: Script) -> None:
    """A rare crash over months never adds up: past the window the next one counts as the first."""
    options = '{"recover_window_s": 0.15, "recover_threshold": 1, "recover_interval_s": 0.2}'
    with run(python_script(IN_SERVICE), "fork", options) as fleet:
        victim = ready_workers(fleet, 2)[0]
        for count in range(3, 6):  # each replacement waits for longer than the window
            fleet.kill(victim)
            victim = ready_workers(fleet, count)[count - 1]
        assert fleet.is_running
        assert fleet.stop() == 0
        assert "returned" in fleet.output


def test_the_back_off_is_honoured(python_script: Script) -> None:
    """Seed: TestPreforkRecoverInterval: the replacement comes no earlier than promised."""
    options = '{"recover_interval_s": 0.5, "recover_threshold": 3}'
    with run(python_script(IN_SERVICE), "fork", options) as fleet:
        victim = ready_workers(fleet, 2)[0]
        since = time.monotonic()
        fleet.kill(victim)
        fleet.wait_for_all("master: spawn", 3)
        assert time.monotonic() - since >= 0.5
        assert fleet.stop() == 0


def test_a_stop_does_not_wait_for_the_back_off(python_script: Script) -> None:
    """Seed: TestPreforkShutdownDoesNotBlockOnRecoverInterval: a minute's delay holds up no stop."""
    options = '{"recover_interval_s": 60, "shutdown_grace_period_s": 60, "recover_threshold": 3}'
    with run(python_script(IN_SERVICE), "fork", options) as fleet:
        for worker in ready_workers(fleet, 2):
            fleet.kill(worker)
        fleet.wait_for_all("next start in", 2)
        assert fleet.stop() == 0
        assert "returned" in fleet.output


LOGGERS = """
    import logging
    from prefork import Prefork
    from story import *

    class Bare:
        def info(self, fmt, *args): say("bare info " + fmt % args)
        def warning(self, fmt, *args): say("bare warning " + fmt % args)
        def error(self, fmt, *args): say("bare error " + fmt % args)

    def standard():
        logger = logging.getLogger("mine")
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("mine %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        return logger

    logger = Bare() if sys.argv[2] == "bare" else standard()
    tell(lambda: Prefork(serve_func=serve, workers=1, start_method=METHOD, logger=logger, recover_threshold=5,
                         recover_interval_s=0.01).listen_and_serve(ANY_PORT))
"""


@pytest.mark.parametrize(("which", "prefix"), [("bare", "bare {}"), ("standard", "mine {}")])
def test_the_logger_is_the_programs_own(python_script: Script, which: str, prefix: str) -> None:
    """A logging.Logger, or anything with info, warning, error(fmt, *args); of master and worker, and nothing beside it."""
    level = {
        name: prefix.format(name if which == "bare" else name.upper())
        for name in ("info", "warning", "error")
    }
    with run(python_script(LOGGERS), "fork", which) as fleet:
        fleet.wait_for(f"^{level['info']} serving http://127", since=0)
        ready_workers(fleet, 1)
        assert ask(fleet, "raise", "100%s") == ""
        fleet.wait_for(f"^{level['error']} Traceback", since=0)
        fleet.wait_for(f"^{level['error']} worker 0 .* crashed: exit status 1", since=0)
        ready_workers(fleet, 2)
        assert fleet.stop() == 0
        assert not fleet.find_all(r"\[master \d+\]")
