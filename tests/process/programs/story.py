"""What the small programs of the library's tests have in common: how they talk, and what they serve.

A program is run as a user's own: `python program.py METHOD`, with this folder on its path. Whatever it wants its test to
know it says, one line in one write, because several processes share one pipe. What it serves is a protocol of
lines: a word comes in, a line goes out.

Not here: anything of the test's side (tests/process/library.py).
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefork import is_child

METHOD = sys.argv[1] if len(sys.argv) > 1 else "fork"
"""The start method that the test asked for."""
ANY_PORT = "127.0.0.1:0"


def say(text: object) -> None:
    """One line for the test, in one write, so that lines of several processes do not mix."""
    os.write(1, f"{text}\n".encode())


def hooks() -> dict[str, Callable[..., object]]:
    """Hooks that say when they are called, and where."""
    home = os.getpid()

    def here() -> str:
        return "master" if os.getpid() == home and not is_child() else "elsewhere"

    return {
        "on_child_spawn": lambda pid: say(f"{here()}: spawn {pid}"),
        "on_master_ready": lambda pids: say(f"{here()}: all {' '.join(map(str, pids))}"),
        "on_child_recover": lambda old, new: say(f"{here()}: recover {old} {new}"),
    }


def tell(call: Callable[[], object]) -> None:
    """Call it, and say how it came back. A child's SystemExit passes through."""
    try:
        call()
    except Exception as error:
        cause = f" from {type(error.__cause__).__name__}" if error.__cause__ else ""
        say(f"raised {type(error).__name__}: {error}{cause}")
    else:
        say("returned")


def talk(connection: socket.socket) -> None:
    """Answer the words of one client until it leaves."""
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            word, *arguments = line.split()
            lines.write(f"{WORDS[word](*arguments)}\n")
            lines.flush()


def serve(listener: socket.socket) -> None:
    """The plainest server: accept, serve, accept the next."""
    while True:
        connection, _ = listener.accept()
        talk(connection)


def _descriptors() -> str:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = str(Path("/proc/self/fd", name).readlink())
        except FileNotFoundError:  # the descriptor that listed the folder
            continue
    return json.dumps(found)


def _hold(name: str) -> str:
    """A request that is in flight until the test says so, by writing to a pipe with a name."""
    say(f"holding {os.getpid()}")
    return f"let go: {Path(name).read_text().strip()}"  # opens when the test opens its end


def _raise(text: str) -> str:
    raise RuntimeError(text)


WORDS: dict[str, Callable[..., Any]] = {
    "pid": os.getpid,
    "parent": os.getppid,
    "is_child": is_child,
    "marker": lambda: os.environ.get("PREFORK_CHILD"),
    "thread": lambda: threading.current_thread().name,
    "random": random.random,
    "descriptors": _descriptors,
    "hold": _hold,
    "raise": _raise,
    "exit": lambda code: sys.exit(int(code)),
    "vanish": lambda code: os._exit(int(code)),
}
