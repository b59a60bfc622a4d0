"""One trial: an input, how it is fed, and everything that must hold of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from prefork.http.asgi import ASGIExchange
from prefork.http.exchange import Exchange
from prefork.http.limits import HttpLimits
from tests.fuzz import applications, oracle
from tests.fuzz.conversation import App, Course, Heard, Talker
from tests.wire.strategies import UPGRADE, UPGRADE_DEFLATE

ECHO: Final = 0
VARIOUS: Final = 1
WSGI: Final = 2
WEBSOCKET: Final = 3
"""What is served; the last with its handshake done."""

MESSAGE_BYTES: Final = 1000
SMALL: Final = HttpLimits(
    target_bytes=100, head_bytes=400, header_count=10, body_bytes=100, message_bytes=MESSAGE_BYTES
)
_ORDINARY: Final = HttpLimits(message_bytes=MESSAGE_BYTES)
_CLOSE: Final = b"\r\nconnection: close"
_REFUSAL: Final = re.compile(
    rb"HTTP/1\.1 [45]\d\d [^\r]+\r\ndate: [^\r]+\r\ncontent-type: text/plain; charset=utf-8\r\n"
    rb"content-length: \d+\r\nconnection: close\r\n\r\n([^\n]+\n)?\Z"
)
"""Of a request with two mistakes, which of them is told may depend on how it came."""
_FIRST: Final = re.compile(rb"\A[A-Z]+ /")
_CLIENT_LEFT: Final = 499
"""What the log says of a request that nobody waits for any more."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Trial:
    """What is served, with what limits, and what is fed how."""

    served: int
    course: Course
    has_small_limits: bool = False
    deflates: bool = False
    """The client of a WebSocket offers compression."""

    is_logged: bool = False
    has_neighbours: bool = False
    """Others have fed the same to the same worker before."""

    @property
    def fed(self) -> bytes:
        return b"".join(self.course.pieces)

    @property
    def upgrade(self) -> bytes:
        return UPGRADE_DEFLATE if self.deflates else UPGRADE


def _app(served: int) -> tuple[App, type[Exchange]]:
    if served == WSGI:
        from prefork.http.wsgi import WSGIExchange  # noqa: PLC0415  (only where it is served)

        return applications.wsgi, WSGIExchange
    return (applications.various if served == VARIOUS else applications.echo), ASGIExchange


def run(talker: Talker, trial: Trial) -> Heard:
    """Hold it. Raises whatever the connection lets out, AssertionError for what reached the loop or the log."""
    app, exchange = _app(trial.served)
    course = trial.course
    if trial.served == WEBSOCKET:
        course = replace(course, pieces=(trial.upgrade, *course.pieces))
    limits = SMALL if trial.has_small_limits else _ORDINARY
    talker.escaped.clear()
    talker.logged.clear()
    is_asgi = exchange is ASGIExchange
    before = _neighbours(trial, app, is_asgi=is_asgi) if trial.has_neighbours else ()
    heard = talker.hold(
        app, exchange, limits, course, websocket=is_asgi, is_logged=trial.is_logged, before=before
    )
    assert not talker.escaped, talker.escaped
    assert not talker.logged, [each.getMessage() + str(each.exc_info) for each in talker.logged]
    return heard


def _neighbours(trial: Trial, app: App, *, is_asgi: bool) -> Iterator[tuple[str, App, Course]]:
    """Two who have asked the same, and two who have asked for something else in the same words: of each one is trusted."""
    if is_asgi:
        app = applications.careless(app)
    other = tuple(_FIRST.sub(rb"GET /left-behind", piece) for piece in trial.course.pieces)
    for pieces in (other, trial.course.pieces):
        for host in ("127.0.0.1", "192.0.2.1"):
            yield host, app, replace(trial.course, pieces=pieces, drains=False, is_late=False)


def check(talker: Talker, trial: Trial) -> None:
    """Hold it as it is told, whole, and byte by byte. Raises AssertionError, or whatever the connection lets out."""
    heard = run(talker, trial)
    check_one(trial, heard)
    if trial.has_neighbours:
        trial = replace(trial, has_neighbours=False)
        assert heard == run(talker, trial)  # nobody can tell who was there before
    course = trial.course
    if trial.served == VARIOUS or course.is_late or course.drains or course.is_slow:
        return  # what is answered depends on when it came
    if b"100-continue" in trial.fed.lower():
        return  # a body that comes unasked ends the connection, one that was asked for does not
    plain = Course((trial.fed,) if trial.fed else (), ends=course.ends)
    whole = run(talker, replace(trial, course=plain))
    pieces = tuple(trial.fed[at : at + 1] for at in range(len(trial.fed)))
    bytewise = run(talker, replace(trial, course=replace(plain, pieces=pieces)))
    assert _said(trial, bytewise) == _said(trial, whole)
    assert _said(trial, heard) == _said(trial, whole)


def _said(trial: Trial, heard: Heard) -> tuple[Any, ...]:
    """What may not depend on how the bytes came."""
    requests = [each for each in heard.requests if each.body is not None]
    if trial.course.ends and b"websocket" in trial.fed.lower():
        return (requests,)  # it may have ended before anybody accepted
    if trial.served == WEBSOCKET or b"HTTP/1.1 101" in heard.raw:
        # Whether a message that came before a mistake or a close is answered depends on when it came.
        return requests, heard.messages, None if _is_early(trial) else heard.end
    raw = _REFUSAL.sub(b"refused", heard.raw.replace(_CONTINUE, b""))
    if trial.course.ends:  # before the last answer, or behind it
        raw = raw.replace(_CLOSE, b"")
    return raw, requests, heard.is_closed or heard.is_eof, heard.was_aborted


def _is_early(trial: Trial) -> bool:
    """Whether the mistake in its frames is known before the end of its frame."""
    if trial.served != WEBSOCKET or trial.deflates:
        return True
    return oracle.read_frames(trial.fed, is_masked=True, limit_bytes=MESSAGE_BYTES).is_early


def check_one(trial: Trial, heard: Heard) -> None:
    """What must hold of one conversation."""
    course = trial.course
    may_wait = trial.served in (VARIOUS, WEBSOCKET) and not heard.is_closed
    is_cut = heard.was_aborted or may_wait or course.ends or course.is_late
    answers = oracle.check_answers(heard, is_cut=is_cut)
    if trial.is_logged and not is_cut and b"websocket" not in trial.fed.lower():
        told = [status for status in heard.records if status != _CLIENT_LEFT]
        assert told == [each.status for each in answers]
    if trial.served == WEBSOCKET:
        if not trial.deflates:  # what is compressed only zlib can tell
            _check_messages(trial.fed[: heard.taken_bytes - len(UPGRADE)], heard, is_whole=not course.is_late)
    elif b"HTTP/1.1 101" not in heard.raw:
        oracle.check_requests(heard, trial.fed, has_bodies=trial.served != VARIOUS)


def _check_messages(fed: bytes, heard: Heard, *, is_whole: bool) -> None:
    """The application was given what is in the frames, and was told how they ended."""
    frames = oracle.read_frames(fed, is_masked=True, limit_bytes=MESSAGE_BYTES)
    assert heard.messages == frames.messages[: len(heard.messages)]
    if not is_whole:
        return
    assert heard.messages == frames.messages
    if frames.close is not None and not (frames.is_mistake and frames.is_early):
        assert heard.end is not None
        assert heard.end[0] == frames.close, (heard.end, frames)
