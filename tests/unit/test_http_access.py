"""The access log: its lines, and what becomes of them when nobody takes them."""

from __future__ import annotations

import datetime as dt
import errno
import json
import logging
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.errors import ConfigError
from prefork.http import access
from prefork.http.access import BATCH_BYTES, UNSENT_BYTES, AccessLog

NOON_S = 1_700_000_000.25
PLAIN = re.compile(r'127\.0\.0\.1 - - \[[^\]]+\] "GET [!#-\[\]-~]+ HTTP/1\.1" 200 13')


class Clock:
    """Two clocks that stand still until they are moved."""

    now_s = 50.0
    wall_s = NOON_S

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_s += seconds


@pytest.fixture(autouse=True)
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone that is not UTC, and not a whole number of hours from it."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-5:30")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def open_log(no_descriptor_leaks: None) -> Iterator[Callable[..., AccessLog]]:
    logs: list[AccessLog] = []

    def make(form: str, target: str | Path = "-", **how: Any) -> AccessLog:
        logs.append(AccessLog(form, str(target), **how))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


@pytest.fixture
def standard_output() -> Iterator[Callable[[int], None]]:
    """Put another descriptor in the place of standard output."""
    saved = os.dup(1)

    def replace(fd: int) -> None:
        os.dup2(fd, 1)

    yield replace
    os.dup2(saved, 1)
    os.close(saved)


def visit(log: AccessLog, target: bytes = b"/", started_s: float = 0.0, **headers: bytes) -> None:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    log.record("127.0.0.1", "GET", target, "1.1", 200, 13, pairs, "http", started_s)


def drained(fd: int) -> bytes:
    """All that a pipe or socket holds at the moment."""
    got = b""
    while select.select([fd], [], [], 0)[0] and (piece := os.read(fd, 1 << 20)):
        got += piece
    return got


# -- lines ---------------------------------------------------------------------------------------------


def test_common(open_log: Any, tmp_path: Path) -> None:
    clock = Clock()
    log = open_log("common", tmp_path / "log", now_s=lambda: clock.now_s, wall_s=lambda: clock.wall_s)
    visit(log, b"/a?b=1", user_agent=b"curl")
    log.flush()
    assert (tmp_path / "log").read_text() == (
        '127.0.0.1 - - [15/Nov/2023:03:43:20 +0530] "GET /a?b=1 HTTP/1.1" 200 13\n'
    )


def test_combined(open_log: Any, tmp_path: Path) -> None:
    log = open_log("combined", tmp_path / "log", wall_s=lambda: NOON_S)
    visit(log, b"/", host=b"h", user_agent=b"curl/8.5.0", referer=b"http://x/?q=1")
    visit(log, b"/")
    visit(log, b"/", user_agent=b"")
    log.flush()
    start = '127.0.0.1 - - [15/Nov/2023:03:43:20 +0530] "GET / HTTP/1.1" 200 13'
    assert (tmp_path / "log").read_text().splitlines() == [
        f'{start} "http://x/?q=1" "curl/8.5.0"',
        f'{start} "-" "-"',
        f'{start} "-" "-"',
    ]


def test_timed(open_log: Any, tmp_path: Path) -> None:
    log = open_log("timed", tmp_path / "log", now_s=lambda: 50.0, wall_s=lambda: NOON_S)
    visit(log, b"/", 49.5, user_agent=b"curl/8.5.0")
    log.flush()
    start = '127.0.0.1 - - [15/Nov/2023:03:43:20 +0530] "GET / HTTP/1.1" 200 13'
    assert (tmp_path / "log").read_text() == f'{start} "-" "curl/8.5.0" 500000\n'


def test_json(open_log: Any, tmp_path: Path) -> None:
    log = open_log("json", tmp_path / "log", now_s=lambda: 50.0, wall_s=lambda: NOON_S)
    visit(log, b"/a", 49.5, host=b"h:80", user_agent='ü "\\\n\x7f\x9b'.encode(), referer=b"\xff\x1b")
    log.record(None, "-", b"", "1.0", 400, 0, (), "https", 50.0)
    log.flush()
    text = (tmp_path / "log").read_text()
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    full, empty = map(json.loads, text.splitlines())
    assert full == {
        "time": "2023-11-15T03:43:20+05:30",
        "pid": os.getpid(),
        "client": "127.0.0.1",
        "scheme": "http",
        "host": "h:80",
        "method": "GET",
        "target": "/a",
        "version": "1.1",
        "status": 200,
        "bytes": 13,
        "duration_us": 500_000,
        "referer": "\\xff\x1b",
        "user_agent": 'ü "\\\n\x7f\x9b',
    }
    assert dt.datetime.fromisoformat(full["time"]).timestamp() == int(NOON_S)
    assert (empty["client"], empty["host"], empty["target"], empty["method"]) == (None, None, "", "-")


def test_the_time_moves_on_with_each_second(open_log: Any, tmp_path: Path) -> None:
    """The wall clock is asked once a second, at its turn and not a second after the last time."""
    clock, asked = Clock(), []

    def wall_s() -> float:
        asked.append(clock.wall_s)
        return clock.wall_s

    log = open_log("common", tmp_path / "log", now_s=lambda: clock.now_s, wall_s=wall_s)
    for step_s in (0, 0.5, 0.2, 0.1, 0.9, 0.2):
        clock.advance(step_s)
        visit(log)
    log.flush()
    times = re.findall(r":43:(\d\d)", (tmp_path / "log").read_text())
    assert times == ["20", "20", "20", "21", "21", "22"]
    assert len(asked) == 3


def test_a_client_without_address_and_one_with_a_strange_one(open_log: Any, tmp_path: Path) -> None:
    log = open_log("common", tmp_path / "log")
    for client in (None, '/run/a "\n\udcff', "::1"):
        log.record(client, "GET", b"/", "1.1", 200, 0, (), "http", 0.0)
    log.flush()
    hosts = [line.split(" ")[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert hosts == ["-", r"/run/a\x20\x22\x0a\xff", "::1"]


def test_nothing_forges_a_line_or_an_escape_sequence(open_log: Any, tmp_path: Path) -> None:
    log = open_log("combined", tmp_path / "log")
    evil = b'x" 200 1\r\n6.6.6.6 - - \x1b[2J\\\t\x00\x7f\x9b\xff'
    visit(log, b"/" + evil, user_agent=evil, referer=evil)
    visit(log, b"/" + evil, user_agent=evil, referer=evil)
    log.flush()
    first, second = (tmp_path / "log").read_text().splitlines()
    shown = r"x\x22 200 1\x0d\x0a6.6.6.6 - - \x1b[2J\x5c\x09\x00\x7f\x9b\xff"
    assert first.endswith(f'"GET /{shown} HTTP/1.1" 200 13 "{shown}" "{shown}"')
    assert second == first, "from memory, too"


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_make_one_line_that_can_be_read_back(target: bytes, user_agent: bytes) -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe, os.fdopen(write, "wb"):
        for form in ("combined", "json"):
            log = AccessLog(form, f"/dev/fd/{write}")
            visit(log, target, user_agent=user_agent)
            log.close()
            line = drained(pipe.fileno()).decode("ascii")
            assert line.endswith("\n")
            assert line[:-1].isprintable()
            if form == "json":
                json.loads(line)
            else:
                _, shown, _, _, _, agent, _ = line.split('"')
                raw = shown.removeprefix("GET ").removesuffix(" HTTP/1.1")
                for text, sent in ((raw, target), (agent, user_agent)):
                    unescaped = re.sub(r"\\x(..)", lambda match: chr(int(match[1], 16)), text)
                    assert unescaped.encode("latin-1") == (sent or b"-")


def test_memory_is_bounded(open_log: Any) -> None:
    log = open_log("combined", "/dev/null")
    for number in range(3000):
        log.record(
            f"10.0.{number >> 8}.{number & 255}", "GET", b"/%d" % number, "1.1", 200, 0, (), "http", 0.0
        )
        visit(log, b"/" + b"x" * 600 + b"%d" % number)
    assert len(log._clients) <= 1024
    assert len(log._texts) <= 1024
    assert max(len(text or b"") for text in log._texts) <= 512


# -- when lines go out ---------------------------------------------------------------------------------


def test_a_line_waits_for_the_tick(open_log: Any, tmp_path: Path) -> None:
    """For the clock the log is due as long as there is something to write, and never else."""
    log = open_log("common", tmp_path / "log")
    assert log.deadline_s == inf
    visit(log)
    assert log.deadline_s == 0
    assert (tmp_path / "log").read_bytes() == b""
    log.on_deadline(1.0)
    assert log.deadline_s == inf
    assert PLAIN.fullmatch((tmp_path / "log").read_text().strip())


@pytest.mark.parametrize("form", ["common", "combined", "timed", "json"])
def test_many_lines_do_not_wait(form: str, open_log: Any, tmp_path: Path) -> None:
    log = open_log(form, tmp_path / "log")
    size = 0
    while not (tmp_path / "log").stat().st_size:
        visit(log)
        size += 1
        assert size < BATCH_BYTES
    assert BATCH_BYTES <= (tmp_path / "log").stat().st_size < BATCH_BYTES + 400


def test_what_is_there_is_appended_to(open_log: Any, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    log = open_log("common", tmp_path / "log")
    visit(log)
    log.close()
    assert (tmp_path / "log").read_text().startswith("before\n127.0.0.1 ")


def test_close_writes_the_rest_and_what_comes_later_is_lost(open_log: Any, tmp_path: Path) -> None:
    log = open_log("common", tmp_path / "log")
    visit(log)
    log.close()
    visit(log)
    log.flush()
    log.reopen()
    log.close()
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_lines_of_several_workers_never_mix(tmp_path: Path) -> None:
    children = []
    for worker in range(3):
        pid = os.fork()
        if not pid:
            try:
                log = AccessLog("common", str(tmp_path / "log"))
                for _ in range(3000):
                    visit(log, b"/%d" % worker * 20)
                log.close()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 9000
    assert all(PLAIN.fullmatch(line) for line in lines)


# -- reopen --------------------------------------------------------------------------------------------


def test_reopen_goes_on_in_a_new_file(open_log: Any, tmp_path: Path) -> None:
    log = open_log("common", tmp_path / "log")
    visit(log, b"/old")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.reopen()
    visit(log, b"/new")
    log.flush()
    assert "/old" in (tmp_path / "log.1").read_text()
    assert "/new" in (tmp_path / "log").read_text()


def test_reopen_that_fails_keeps_the_old_file(
    open_log: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs").mkdir()
    log = open_log("common", tmp_path / "logs" / "log")
    (tmp_path / "logs").rename(tmp_path / "moved")
    log.reopen()
    visit(log)
    log.flush()
    assert len((tmp_path / "moved" / "log").read_text().splitlines()) == 1
    assert caplog.messages == [
        f"access log {tmp_path}/logs/log cannot be opened: its directory does not exist"
    ]


# -- what cannot be opened -----------------------------------------------------------------------------


def test_an_unknown_format_is_refused() -> None:
    for call in (AccessLog, AccessLog.check):
        with pytest.raises(ConfigError, match="must be one of common, combined, timed, json, not 'apache'"):
            call("apache")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none/log", "its directory does not exist"), ("", "Is a directory"), ("fifo", "nobody reads it")],
)
def test_a_file_that_cannot_be_opened_is_refused(
    name: str, reason: str, tmp_path: Path, no_descriptor_leaks: None
) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / name
    with pytest.raises(ConfigError, match=re.escape(f"access log {path} cannot be opened: {reason}")):
        AccessLog("common", str(path))


# -- when nobody takes the lines -----------------------------------------------------------------------


def test_a_pipe_that_nobody_reads_blocks_nobody(
    open_log: Any, standard_output: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Lines wait, then are dropped; when there is room again all that waited comes, whole, and the loss is told."""
    read, write = os.pipe()
    standard_output(write)
    os.close(write)
    log = open_log("common")
    assert os.get_blocking(1), "others share it"
    recorded = 0
    while not log.dropped:
        visit(log, b"/%d" % recorded)
        recorded += 1
        assert recorded * 70 < 2 * UNSENT_BYTES
    log.flush()
    assert len(log._unsent) <= UNSENT_BYTES
    assert log.deadline_s == 0
    assert caplog.messages == ["access log on standard output: lines are dropped: nobody reads it"]
    dropped, got = log.dropped, b""
    while log.deadline_s == 0:
        got += drained(read)
        log.on_deadline(1.0)
    got += drained(read)
    os.close(read)
    lines = got.decode().splitlines()
    assert all(PLAIN.fullmatch(line) for line in lines)
    assert len(lines) == recorded - dropped
    assert [f'"GET /{number} HTTP' in line for number, line in enumerate(lines)] == [True] * len(lines)
    assert caplog.messages[1:] == [
        f"access log on standard output is written again: {dropped} lines were dropped"
    ]
    assert log.dropped == 0


def test_a_pipe_that_nobody_reads_any_more(
    open_log: Any, standard_output: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    read, write = os.pipe()
    standard_output(write)
    os.close(write)
    log = open_log("common")
    visit(log)
    log.flush()
    os.close(read)
    visit(log)
    log.flush()
    assert log.deadline_s == 0
    log.close()
    assert caplog.messages == ["access log on standard output: 1 lines were lost: Broken pipe"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_stops_nothing(open_log: Any, caplog: pytest.LogCaptureFixture) -> None:
    log = open_log("common", "/dev/full")
    for _ in range(UNSENT_BYTES // 70 + 3000):
        visit(log)
    log.flush()
    assert log.dropped
    assert caplog.messages == ["access log /dev/full: lines are dropped: No space left on device"]


def test_a_disk_with_room_again(open_log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that was cut short goes on where it stopped."""
    log = open_log("common", tmp_path / "log")
    real, room = os.write, 100

    def cut(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:room])

    monkeypatch.setattr(access.os, "write", cut)
    for number in range(5):
        visit(log, b"/%d" % number)
    log.flush()
    assert log.deadline_s == inf
    room = 0
    visit(log, b"/5")
    log.flush()
    assert log.deadline_s == 0
    room = 7
    log.flush()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [PLAIN.fullmatch(line) is not None and f"/{n} " in line for n, line in enumerate(lines)] == [
        True
    ] * 6


@pytest.mark.parametrize("length", [10, 5000])
def test_standard_output_may_be_a_socket(
    length: int, open_log: Any, standard_output: Callable[[int], None]
) -> None:
    """As for a service of systemd's. It blocks for others, and not for us."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        standard_output(theirs.fileno())
        log = open_log("common")
        count = 3 * UNSENT_BYTES // (length + 70)
        for number in range(count):
            visit(log, b"/%d" % number * (length // 5))
        log.flush()
        got = b""
        while log.deadline_s == 0:
            got += drained(ours.fileno())
            log.flush()
        got += drained(ours.fileno())
        assert theirs.getblocking()
        lines = got.decode().splitlines()
        assert all(PLAIN.fullmatch(line.replace("\\", "/")) for line in lines)
        assert 0 < len(lines) < count
        log.close()


def test_standard_output_in_a_file_is_shared_with_others(
    open_log: Any, standard_output: Callable[[int], None], tmp_path: Path
) -> None:
    """Without O_APPEND (the shell's ">") only a shared offset keeps others from writing over our lines."""
    with (tmp_path / "out").open("wb") as file:
        standard_output(file.fileno())
    log = open_log("common")
    os.write(1, b"first\n")
    visit(log)
    log.flush()
    os.write(1, b"last\n")
    first, ours, last = (tmp_path / "out").read_text().splitlines()
    assert (first, last) == ("first", "last")
    assert PLAIN.fullmatch(ours)


def test_a_pipe_that_cannot_be_opened_anew_is_asked_first(
    open_log: Any, standard_output: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another user's, or where there is no /proc; with the alarm, blocking would fail the test."""
    real = os.open

    def refuse(path: Any, *rest: Any) -> int:
        if "/proc/" in str(path):
            raise PermissionError
        return real(path, *rest)

    read, write = os.pipe()
    standard_output(write)
    os.close(write)
    with monkeypatch.context() as patch:
        patch.setattr(access.os, "open", refuse)
        log = open_log("common")
    assert log._sink is not None
    assert log._sink._is_blocking
    signal.alarm(20)
    try:
        for _ in range(5000):
            visit(log)
        log.flush()
        assert log.deadline_s == 0
        assert drained(read).count(b"\n") > 700
        log.flush()
        assert drained(read)
    finally:
        signal.alarm(0)
    log.close()
    os.close(read)


def test_close_waits_for_a_reader_that_is_behind(
    open_log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pipe cannot take at once still goes out, if somebody reads."""
    read, write = os.pipe()
    log = open_log("common", f"/dev/fd/{write}")
    os.close(write)
    for _ in range(3000):
        visit(log)
    log.flush()
    assert log.deadline_s == 0
    got = bytearray()
    real = access.Sink.is_ready

    def read_some(sink: access.Sink, limit_s: float) -> bool:
        got.extend(os.read(read, 30_000))
        return real(sink, limit_s)

    monkeypatch.setattr(access.Sink, "is_ready", read_some)
    log.close()
    got += drained(read)
    os.close(read)
    assert got.count(b"\n") == 3000


def test_messages_go_to_our_own_logger(caplog: pytest.LogCaptureFixture, open_log: Any) -> None:
    log = open_log("common", "/dev/null")
    log.dropped = 2
    visit(log)
    with caplog.at_level(logging.WARNING, "prefork.http"):
        log.flush()
    assert [record.name for record in caplog.records] == ["prefork.http"]
