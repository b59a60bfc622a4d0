"""Counted load, in a process of its own, so that no test's interpreter lock bends it.

    python -m tests.process.load http://127.0.0.1:8080/ --clients 32 --seconds 10

prints one JSON object: `Report`, field by field. From a test:

    load = Load(url, clients=32).start()     # returns when every client has tried once
    ...                                      # reload, kill, scale
    report = load.finish()                   # each client ends its request first
    assert not report.failed, report

The process ends at SIGTERM, SIGINT, after `--seconds`, and with `--until-told` at a line or the end of its
standard input: so it never outlives the test that started it.

Not here: what a client does and what counts as a failure (load_client.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.process.load_client import Client, Tally, Target

STARTED = "started"
REQUEST_TIMEOUT_S = 20.0
START_LIMIT_S = 60.0
FINISH_MARGIN_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Report:
    """What the load counted.

    `failed` is kind → count ("head: reset": 3), `failures` the first 20 in detail, with `at_s` since the
    start and `time` as in `time.time()`. `workers` is pid → answers, where the application tells its pid.
    """

    tried: int
    answered: int
    failed: dict[str, int]
    connections: int
    idle_closes: int
    seconds: float
    slowest_s: float
    workers: dict[str, int]
    failures: list[dict[str, Any]]

    @property
    def failed_count(self) -> int:
        """How many requests failed, of any kind."""
        return sum(self.failed.values())

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote."""
        return cls(**json.loads(text))


async def run_load(
    url: str,
    stop: asyncio.Event,
    *,
    clients: int,
    timeout_s: float = REQUEST_TIMEOUT_S,
    expected: bytes = b"",
    pause_s: float = 0.0,
    started: asyncio.Event | None = None,
) -> Report:
    """Run `clients` clients (half fresh, half keep-alive) until `stop`; `started` when each has tried once."""
    target = Target.parse(url)
    tally = Tally()
    begun_s, begun_wall_s = time.monotonic(), time.time()
    crowd = [
        Client(
            target,
            tally,
            stop,
            keep_alive=index % 2 == 1,
            timeout_s=timeout_s,
            expected=expected,
            pause_s=pause_s,
        )
        for index in range(clients)
    ]
    async with asyncio.TaskGroup() as group:
        for client in crowd:
            group.create_task(client.run())
        for client in crowd:
            await client.tried_once.wait()
        if started is not None:
            started.set()
    return Report(
        tried=tally.tried,
        answered=tally.answered,
        failed=dict(tally.failed),
        connections=tally.connections,
        idle_closes=tally.idle_closes,
        seconds=round(time.monotonic() - begun_s, 3),
        slowest_s=round(tally.slowest_s, 4),
        workers=dict(tally.workers),
        failures=[{"at_s": round(one["time"] - begun_wall_s, 3), **one} for one in tally.failures],
    )


class Load:
    """Load from a process of its own: `start()`, then `finish()`. As a context manager it ends for certain.

    url: as `Target.parse` takes it. clients: half fresh, half keep-alive. timeout_s: bound of one request.
    expected: text that every body must hold. pause_s: of each client between two requests.
    prefix: a command to run it by ("ip netns exec ...").
    """

    def __init__(
        self,
        url: str,
        *,
        clients: int = 32,
        timeout_s: float = REQUEST_TIMEOUT_S,
        expected: str = "",
        pause_s: float = 0.0,
        prefix: Sequence[str] = (),
    ) -> None:
        self._url = url
        self._clients = clients
        self._timeout_s = timeout_s
        self._expected = expected
        self._pause_s = pause_s
        self._prefix = tuple(prefix)
        self._popen: subprocess.Popen[str] | None = None
        self._report: Report | None = None

    def start(self) -> Self:
        """Start it; return when every client has had its first answer or failure. AssertionError if not."""
        arguments = [self._url, "--clients", str(self._clients), "--request-timeout", str(self._timeout_s)]
        self._popen = subprocess.Popen(
            [
                *self._prefix,
                sys.executable,
                "-m",
                "tests.process.load",
                *arguments,
                "--expect",
                self._expected,
                "--pause",
                str(self._pause_s),
                "--until-told",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        line = self._first_line(self._popen)
        if line != STARTED:
            self.close()
            msg = f"the load did not start within {START_LIMIT_S:g} s, it said {line!r}"
            raise AssertionError(msg)
        return self

    def _first_line(self, popen: subprocess.Popen[str]) -> str:
        if popen.stdout is None:  # never: opened as a pipe in start()
            return ""
        readable, _, _ = select.select([popen.stdout], [], [], START_LIMIT_S)
        return popen.stdout.readline().strip() if readable else ""

    def finish(self) -> Report:
        """Let every client end its request, then return what was counted. Again: the same report."""
        if self._report is None:
            if self._popen is None:
                msg = "the load has not been started"
                raise RuntimeError(msg)
            try:
                # Closing its standard input, which communicate() does, is what tells it.
                output, _ = self._popen.communicate(timeout=self._timeout_s + FINISH_MARGIN_S)
            finally:
                self.close()
            self._report = Report.from_json(output.splitlines()[-1])
        return self._report

    def close(self) -> None:
        """End it without a report, if it still runs."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.kill()
        if self._popen is not None:
            self._popen.wait()
            for stream in (self._popen.stdin, self._popen.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # nobody is there to read what was buffered
                        stream.close()

    def __enter__(self) -> Self:
        return self if self._popen else self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def _command(options: argparse.Namespace) -> Report:
    loop = asyncio.get_running_loop()
    stop, started = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.seconds is not None:
        loop.call_later(options.seconds, stop.set)
    if options.until_told:
        loop.add_reader(0, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            if options.until_told:
                group.create_task(_announce(started))
            load = group.create_task(
                run_load(
                    options.url,
                    stop,
                    clients=options.clients,
                    timeout_s=options.request_timeout,
                    expected=options.expect.encode(),
                    pause_s=options.pause,
                    started=started,
                )
            )
    finally:
        loop.remove_reader(0)
    return load.result()


async def _announce(started: asyncio.Event) -> None:
    await started.wait()
    print(STARTED, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: run the load, print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.process.load", description="counted HTTP load")
    parser.add_argument("url", help="http://HOST:PORT/PATH or unix:PATH")
    parser.add_argument("--clients", type=int, default=32, help="half fresh, half keep-alive (32)")
    parser.add_argument("--seconds", type=float, help="how long; without it until SIGTERM or SIGINT")
    parser.add_argument("--request-timeout", type=float, default=REQUEST_TIMEOUT_S, help="seconds (20)")
    parser.add_argument("--expect", default="", help="text that every body must hold")
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds of a client between two requests (0)"
    )
    parser.add_argument(
        "--until-told", action="store_true", help="end at a line, or the end, of standard input"
    )
    print(asyncio.run(_command(parser.parse_args(arguments))).to_json(), flush=True)


if __name__ == "__main__":
    main()
