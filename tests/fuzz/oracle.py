"""What must hold of a conversation, whatever was fed.

Answers are read by h11 as a client, requests by h11 as a server, frames by a decoder of our own that sees all of them at
once: none of them shares a line with what is tested.

Where we take more than h11 does, on purpose:

* blank lines before a request are skipped (RFC 9112 §2.2), which h11 refuses;
* several spaces in a request line are one, as RFC 9112 §3 allows, and llhttp does;
* HTTP/1.0 connections are kept if the client asks, which h11 does not offer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import h11

from tests.fuzz.conversation import Heard, Request

_NO_LIMIT: Final = 2**20


@dataclass(frozen=True)
class Answer:
    """One answer, as h11 has read it."""

    status: int
    body: bytes
    closes: bool
    interim: int
    """How many 1xx came before it."""


def answers(raw: bytes, methods: Sequence[str], *, is_cut: bool) -> tuple[list[Answer], bytes]:
    """All answers in `raw`, and what follows a 101. `methods` are those of the requests that applications were given.

    `is_cut`: the last answer may be incomplete, as the connection was reset. Raises AssertionError.
    """
    found: list[Answer] = []
    while raw:
        method = methods[len(found)] if len(found) < len(methods) else _method_refused(raw)
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=_NO_LIMIT)
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a"), *_upgrading(raw)]))
        client.send(h11.EndOfMessage())
        client.receive_data(raw)
        status, body, closes, interim = 0, b"", False, 0
        while True:
            event = client.next_event()
            if event is h11.NEED_DATA and (is_cut or closes):
                client.receive_data(b"")
                try:
                    event = client.next_event()
                except h11.RemoteProtocolError:
                    assert is_cut, "the last answer is not whole"
                    return found, b""
            if event is h11.NEED_DATA and interim and not status:
                return found, b""  # the answer to come is asked for: the request has not all come
            assert event is not h11.NEED_DATA, f"the answer is not whole: {raw!r}"
            if isinstance(event, h11.InformationalResponse):
                interim += 1
                if event.status_code == 101:
                    return [*found, Answer(101, b"", False, interim)], client.trailing_data[0]
            elif isinstance(event, h11.Response):
                status = event.status_code
                closes = (b"connection", b"close") in list(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.EndOfMessage), event
                break
        found.append(Answer(status, body, closes, interim))
        raw = client.trailing_data[0]
        assert not (closes and raw), f"more is sent after `connection: close`: {raw!r}"
    return found, b""


def _method_refused(raw: bytes) -> str:
    """What a refused request was: a refusal comes with its text, and only a HEAD's must come without."""
    return "HEAD" if raw.endswith(b"\r\n\r\n") else "GET"


def _upgrading(raw: bytes) -> list[tuple[str, str]]:
    """h11 accepts a 101 only if it was asked for."""
    return [("Connection", "Upgrade"), ("Upgrade", "websocket")] if raw.startswith(b"HTTP/1.1 101") else []


def check_answers(heard: Heard, *, is_cut: bool) -> list[Answer]:
    """Whole answers, at most one more than there are requests; a refusal is the last. Raises AssertionError."""
    found, frames = answers(heard.raw, [each.method for each in heard.requests], is_cut=is_cut)
    assert len(found) <= len(heard.requests) + 1, f"{len(found)} answers to {len(heard.requests)} requests"
    final = [each for each in found if each.status != 101]
    for each in final[:-1]:
        assert not each.closes, "an answer that is not the last says that it is"
    if final and final[-1].closes:
        assert heard.is_closed or heard.is_eof, "`connection: close`, and the connection stays"
    if frames and b"permessage-deflate" not in heard.raw:
        said = read_frames(frames, is_masked=False, limit_bytes=_NO_LIMIT)
        assert not said.is_mistake, said
    return found


def requests_by_h11(raw: bytes) -> list[Request]:
    """What h11 as a server reads in `raw`, up to its end or its first error."""
    found: list[Request] = []
    while raw := raw.lstrip(b"\r\n"):
        line, end, rest = raw.partition(b"\r\n")
        raw = re.sub(b" +", b" ", line) + end + rest
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=_NO_LIMIT)
        server.receive_data(raw)
        request: Any = None
        body = b""
        try:
            while True:
                event = server.next_event()
                if isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    break
        except h11.RemoteProtocolError:
            event = None
        if request is None:
            break
        is_whole = isinstance(event, h11.EndOfMessage)
        path, _, query = request.target.partition(b"?")
        found.append(
            Request(
                request.method.decode(),
                (path, query),
                tuple(request.headers),
                body if is_whole else None,
                request.http_version.decode(),
            )
        )
        if not is_whole:
            break
        raw = bytes(server.trailing_data[0])
        if _is_last(found[-1]):
            break
    return found


def _is_last(request: Request) -> bool:
    """The client has said that no other follows."""
    tokens = {
        token.strip().lower()
        for name, value in request.headers
        if name == b"connection"
        for token in value.split(b",")
    }
    return b"close" in tokens if request.version == "1.1" else b"keep-alive" not in tokens


def check_requests(heard: Heard, fed: bytes, *, has_bodies: bool) -> None:
    """What we took for requests h11 takes for the same ones. Raises AssertionError."""
    theirs = requests_by_h11(fed)
    for index, ours in enumerate(heard.requests):
        assert index < len(theirs), f"h11 reads no request here: {ours}"
        other = theirs[index]
        assert (ours.method, ours.version) == (other.method, other.version)
        assert _same_target(ours, other), (ours, other)
        if ours.headers and other.target[0][:1] in (b"/", b"*"):
            assert _as_h11_says(ours.headers) == other.headers, (ours, other)
        if has_bodies and ours.body is not None:
            assert ours.body == other.body, (ours, other)


def _as_h11_says(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name, value.lower() if name == b"transfer-encoding" else value) for name, value in headers)


def _same_target(ours: Request, other: Request) -> bool:
    path, query = other.target
    if path[:1] not in (b"/", b"*"):  # absolute-form
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return ours.target == (path, query)


@dataclass
class Frames:
    """What a stream of frames says."""

    messages: list[str | bytes]
    close: int | None = None
    """The code of the first close frame (1005: none), or of the first mistake, as RFC 6455 has it."""
    is_mistake: bool = False
    is_early: bool = False
    """The frame with the mistake is not whole; what is short may be read as a whole before it is judged."""


def read_frames(raw: bytes, *, is_masked: bool, limit_bytes: int) -> Frames:
    """Read frames without extensions, all at once (RFC 6455 §5)."""
    found = Frames([])
    opcode_of_message, message = 0, b""

    def mistake(code: int) -> Frames:
        found.close, found.is_mistake = code, True
        return found

    while len(raw) >= 2:
        first, second = raw[0], raw[1]
        opcode, size, at = first & 15, second & 127, 2
        found.is_early = len(raw) < 2 + 4 * is_masked + (size if size < 126 else 0)
        if first & 0x70 or opcode not in (0, 1, 2, 8, 9, 10) or bool(second & 128) != is_masked:
            return mistake(1002)
        if opcode >= 8 and (size > 125 or not first & 128):
            return mistake(1002)
        if opcode < 8 and bool(opcode) == bool(opcode_of_message):
            return mistake(1002)
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(raw) < 2 + width:
                return found
            (size,) = struct.unpack_from("!H" if width == 2 else "!Q", raw, 2)
            at += width
            if size < (126 if width == 2 else 65536):
                return mistake(1002)
            if size + len(message) > limit_bytes:
                return mistake(1009)
        end = at + 4 * is_masked + size
        if len(raw) < end:
            return found
        payload = raw[end - size : end]
        if is_masked:
            mask = raw[at : at + 4]
            payload = bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
        raw = raw[end:]
        if opcode == 8:
            return _closed(found, payload, mistake)
        if opcode > 8:
            continue
        opcode_of_message = opcode or opcode_of_message
        message += payload
        if len(message) > limit_bytes:
            return mistake(1009)
        if first & 128:
            try:
                found.messages.append(message.decode() if opcode_of_message == 1 else message)
            except UnicodeDecodeError:
                return mistake(1007)
            opcode_of_message, message = 0, b""
    return found


def _closed(found: Frames, payload: bytes, mistake: Any) -> Frames:
    code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 1005 if not payload else 0
    if not (code in (1000, 1001, 1002, 1003, 1005) or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return mistake(1002)  # type: ignore[no-any-return]
    if payload and code == 1005:
        return mistake(1002)  # type: ignore[no-any-return]
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return mistake(1007)  # type: ignore[no-any-return]
    found.close = code
    return found
