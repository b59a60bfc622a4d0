"""What an idle keep-alive connection costs in memory: the growth of all server processes, for each connection held.

Each round starts a server, lets it serve a few connections that close again, then opens many with one request each, one
after the other. PSS: shared pages are counted once; what the kernel holds for a socket is the same for all and not in it.

Not here: load (load.py).
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks.http import running as run
from benchmarks.http import subjects as who
from benchmarks.http.load import LoadError
from benchmarks.http.measuring import PART, Effort
from benchmarks.http.report import ratio_verdict
from benchmarks.http.running import DidNotStartError, Running
from benchmarks.http.scenarios import PYTHON_PEERS
from benchmarks.run.figures import Figure, Verdict
from benchmarks.run.steps import Step, in_turns
from benchmarks.run.watch import Watch

NAME: Final = "idle"
MOST_ROUNDS: Final = 3
ROUND_S: Final = 7.0
CONNECTIONS: Final = 2000
SPARE_DESCRIPTORS: Final = 200
WARM_UP_CONNECTIONS: Final = 64
SUBJECTS: Final = (who.ASGI, *PYTHON_PEERS)
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ANSWER_END: Final = b"Hello, World!"
SETTLE_S: Final = 1.0
"""After the last answer: a server's own timers run once."""
_ANSWER_LIMIT_S: Final = 5.0


@dataclass(slots=True)
class Memory:
    """Bytes for each connection, round by round; `failure` says why there are none."""

    who: str
    bytes_each: list[float] = field(default_factory=list)
    failure: str = ""

    def __str__(self) -> str:
        if not self.bytes_each:
            return f"  {self.who:<30} {self.failure}"
        low, high = min(self.bytes_each), max(self.bytes_each)
        text = f"{median(self.bytes_each):9,.0f} bytes ({low:,.0f} to {high:,.0f}, n={len(self.bytes_each)})"
        return f"  {self.who:<30} {text}" + (f"   then: {self.failure}" if self.failure else "")


def steps(effort: Effort, is_wanted: Callable[[str], bool]) -> list[Step]:
    """What `measure` will do."""
    found = [Step(PART, NAME, each.name, ROUND_S) for each in SUBJECTS if is_wanted(each.name)]
    return found * min(effort.rounds, MOST_ROUNDS)


def measure(
    effort: Effort, watch: Watch, is_wanted: Callable[[str], bool]
) -> tuple[list[Figure], list[Verdict]]:
    """All subjects in turns: their figures, and whether ours is the least."""
    count = _connections_allowed()
    watch.say(f"\nidle keep-alive connections, {count} open: memory of all server processes for each")
    found = {subject: Memory(subject.name) for subject in SUBJECTS if is_wanted(subject.name)}
    for subject in in_turns(list(found), min(effort.rounds, MOST_ROUNDS)):
        if not found[subject].failure:
            with watch.step(PART, NAME, subject.name):
                _one_round(subject, found[subject], effort, count)
    for memory in found.values():
        watch.say(memory)
    figures = [
        Figure(
            PART,
            NAME,
            f"{count} idle keep-alive connections",
            "memory of each",
            memory.who,
            "bytes",
            tuple(memory.bytes_each),
            subject.is_ours,
            memory.failure,
        )
        for subject, memory in found.items()
    ]
    return figures, [_verdict(list(found.values()), count)]


def _one_round(subject: who.Subject, memory: Memory, effort: Effort, count: int) -> None:
    try:
        with run.running(subject, "serving:hello", effort.workers, effort.directory) as target:
            target.wait_for_answer()
            run.settle()
            memory.bytes_each.append(_growth_bytes(target, count) / count)
    except DidNotStartError as error:
        memory.failure = f"did not start: {error}"
    except LoadError as error:
        memory.failure = str(error)
    except OSError as error:
        memory.failure = f"a connection was not answered within {_ANSWER_LIMIT_S:g} s: {error}"


def _connections_allowed() -> int:
    """How many descriptors we may have, ours and each server's, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return CONNECTIONS if hard == resource.RLIM_INFINITY else min(CONNECTIONS, hard - SPARE_DESCRIPTORS)


def _growth_bytes(target: Running, count: int) -> int:
    with _held(target.port, WARM_UP_CONNECTIONS):
        pass
    time.sleep(SETTLE_S)
    before = target.pss_bytes()
    with _held(target.port, count) as clients:
        time.sleep(SETTLE_S)
        after = target.pss_bytes()
        poll = select.poll()
        for client in clients:
            poll.register(client, select.POLLIN | select.POLLHUP)
        if closed := len(poll.poll(0)):
            raise LoadError(f"{closed} of {count} idle connections were closed")
    return after - before


@contextlib.contextmanager
def _held(port: int, count: int) -> Iterator[list[socket.socket]]:
    """`count` connections, each answered once and then left alone."""
    with contextlib.ExitStack() as stack:
        clients: list[socket.socket] = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), _ANSWER_LIMIT_S))
            client.sendall(REQUEST)
            answer = b""
            while not answer.endswith(ANSWER_END):
                data = client.recv(4096)
                if not data:
                    raise LoadError(f"connection {len(clients) + 1} was closed: {answer[:80]!r}")
                answer += data
            clients.append(client)
        yield clients


def _verdict(found: list[Memory], count: int) -> Verdict:
    ours = next(
        (each for each in found if each.who == who.ASGI.name), Memory(who.ASGI.name, failure="left out")
    )
    peers = [each for each in found if each is not ours]
    measured = [each for each in peers if each.bytes_each]
    missing = ", ".join(each.who for each in peers if not each.bytes_each)
    ratio, note = None, f"{ours.who} {ours.failure}" if ours.failure else "no peer was measured"
    if ours.bytes_each and measured:
        best = min(measured, key=lambda each: median(each.bytes_each))
        ratio = median(ours.bytes_each) / median(best.bytes_each)
        note = f"{median(ours.bytes_each):,.0f} / {median(best.bytes_each):,.0f} bytes ({best.who})"
        note += f"; not measured: {missing}" if missing else ""
    what = f"memory of an idle connection / best Python peer, {count} connections"
    return ratio_verdict(what, ratio, 1.0, is_strict=True, note=note)
