"""Frames and compression by themselves: any split, any fragmentation, what is agreed on, and what is refused."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.headers import parse_extension

from prefork.http import websocket_frames
from prefork.http.websocket_control import FrameError, close_frame, is_close_code, parse_close
from prefork.http.websocket_deflate import Agreement, Deflater, Inflater, agree
from prefork.http.websocket_frames import HIGH_WATER_BYTES, FrameReader, frame_head

PLAIN = Agreement(15, 15, server_forgets=False, client_forgets=False, is_client_bits_told=False)
LIMIT = 100_000


class Client:
    """What a client sends, by the `websockets` library."""

    def __init__(self, *, deflates: bool = False) -> None:
        self.extensions = [PerMessageDeflate(False, False, 15, 15, {})] if deflates else []

    def frame(self, opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
        return Frame(opcode, payload, fin).serialize(mask=True, extensions=self.extensions)

    def message(self, opcode: Opcode, pieces: list[bytes]) -> bytes:
        frames = [
            self.frame(opcode if index == 0 else Opcode.CONT, piece, fin=index == len(pieces) - 1)
            for index, piece in enumerate(pieces)
        ]
        return self.frame(Opcode.PING, b"between").join(frames)


def read(pieces: Iterable[bytes], *, deflates: bool = False) -> list[Any]:
    """Feed all the pieces, and take the messages whenever there is no more room."""
    taken: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    reader = FrameReader(messages, LIMIT, Inflater(PLAIN) if deflates else None)
    for piece in pieces:
        reader.feed(piece)
        while reader.is_full:
            taken += messages
            messages.clear()
            reader.feed(b"")
    return [each.get("text", each.get("bytes")) for each in taken + messages]


@given(
    messages=st.lists(st.text(max_size=200) | st.binary(max_size=200) | st.just("é" * 3000), max_size=8),
    cuts=st.lists(st.integers(0, 500), max_size=8),
    pieces=st.integers(1, 4),
    deflates=st.booleans(),
)
@settings(deadline=None)
def test_messages_do_not_depend_on_how_they_come(
    messages: list[str | bytes],
    cuts: list[int],
    pieces: int,
    deflates: bool,  # noqa: FBT001
) -> None:
    client = Client(deflates=deflates)
    said = b""
    for message in messages:
        payload = message.encode() if isinstance(message, str) else message
        step = len(payload) // pieces + 1
        parts = [payload[at : at + step] for at in range(0, max(len(payload), 1), step)]
        said += client.message(Opcode.TEXT if isinstance(message, str) else Opcode.BINARY, parts)
    split, position = [], 0
    for cut in cuts:
        split.append(said[position : position + cut])
        position += cut
    assert read([*split, said[position:]], deflates=deflates) == messages
    assert read((said[at : at + 1] for at in range(len(said))), deflates=deflates) == messages


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 4096, 70_001])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_masks_are_the_same_without_the_c_routine(size: int, kind: Any) -> None:
    data, mask = os.urandom(size), os.urandom(4)
    wanted = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    assert websocket_frames._xor(kind(data), bytearray(mask)) == wanted
    assert websocket_frames._unmask(kind(data), mask) == wanted


def test_frames_are_read_without_the_c_routine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_frames, "_unmask", websocket_frames._xor)
    client = Client()
    payloads = [b"x" * size for size in (0, 5, 3000, 70_000)]
    said = b"".join(client.frame(Opcode.BINARY, payload) for payload in payloads)
    assert read([said]) == read([said[:99], said[99:]]) == payloads


def test_reading_stops_where_the_messages_are_full_and_goes_on_from_there() -> None:
    client = Client()
    messages: list[dict[str, Any]] = []
    reader = FrameReader(messages, LIMIT, None)
    said = b"".join(client.frame(Opcode.TEXT, b"%d" % index) for index in range(1000))
    big = client.frame(Opcode.BINARY, b"x" * 60_000)
    reader.feed(big[:50])  # it needs a lot, which those behind it do not
    reader.feed(big[50:] + said)
    seen = 0
    while reader.is_full:
        assert 0 < len(messages) <= HIGH_WATER_BYTES // 1024 + 1
        seen += len(messages)
        messages.clear()
        reader.feed(b"")
    assert seen + len(messages) == 1001
    assert messages[-1]["text"] == "999"


def test_nothing_is_read_behind_a_close() -> None:
    client = Client()
    messages: list[dict[str, Any]] = []
    reader = FrameReader(messages, LIMIT, None)
    reader.feed(client.frame(Opcode.CLOSE, b"\x03\xe8bye") + client.frame(Opcode.TEXT, b"x") + b"junk")
    assert reader.close == b"\x03\xe8bye"
    assert not messages


def test_empty_fragments_take_no_memory() -> None:
    client = Client()
    reader = FrameReader([], LIMIT, None)
    reader.feed(client.frame(Opcode.TEXT, b"", fin=False))
    for _ in range(1000):
        reader.feed(client.frame(Opcode.CONT, b"", fin=False) * 10)
    assert not reader._message
    assert not reader._tail


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_heads_are_the_librarys(size: int) -> None:
    payload = b"x" * size
    wanted = Frame(Opcode.BINARY, payload).serialize(mask=False)
    assert frame_head(websocket_frames.WHOLE_BINARY, size) + payload == wanted


# -- close codes -------------------------------------------------------------------------------------


def test_close_codes_are_those_of_the_registry() -> None:
    allowed = [code for code in range(70_000) if is_close_code(code)]
    assert allowed == [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]


def test_a_close_frame_is_what_it_says() -> None:
    assert parse_close(close_frame(1000, "ü" * 61)[2:]) == (1000, "ü" * 61)
    assert parse_close(b"") == (1005, "")
    for code, reason in ((1005, ""), (1000, "ü" * 62)):
        with pytest.raises(ValueError, match="no close frame can say"):
            close_frame(code, reason)


# -- compression -------------------------------------------------------------------------------------

OFFERS: dict[bytes, bytes | None] = {
    b"permessage-deflate": b"permessage-deflate; server_max_window_bits=12",
    b"permessage-deflate; client_max_window_bits": (
        b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
    ),
    b'Permessage-Deflate;client_max_window_bits="10"': (
        b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=10"
    ),
    b"permessage-deflate; client_max_window_bits=15; server_max_window_bits=9": (
        b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=12"
    ),
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover": (
        b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12"
    ),
    b"x-other, permessage-deflate; unknown, permessage-deflate": (
        b"permessage-deflate; server_max_window_bits=12"
    ),
    b"permessage-deflate; server_max_window_bits=8": None,
    b"permessage-deflate; server_max_window_bits": None,
    b"permessage-deflate; server_max_window_bits=16": None,
    b"permessage-deflate; server_max_window_bits=09": None,
    b"permessage-deflate; client_max_window_bits=7": None,
    b"permessage-deflate; client_max_window_bits=9; client_max_window_bits=9": None,
    b"permessage-deflate; server_no_context_takeover=1": None,
    b"permessage-deflate; client_no_context_takeover=": None,
    b"x-webkit-deflate-frame": None,
    b"": None,
    b";,;,=": None,
}


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_is_agreed_to_or_declined(offer: bytes) -> None:
    agreement = agree([offer])
    assert (agreement.answer if agreement else None) == OFFERS[offer]


def test_offers_may_come_in_several_headers() -> None:
    agreement = agree([b"permessage-deflate; x", b"permessage-deflate"])
    assert agreement is not None
    assert agree([]) is None


@given(
    own=st.sampled_from([None, *range(9, 16)]),
    theirs=st.sampled_from([None, True, *range(9, 16)]),
    forgets=st.tuples(st.booleans(), st.booleans()),
    messages=st.lists(st.binary(max_size=5000).map(lambda each: each * 5), max_size=5),
)
@settings(deadline=None)
def test_both_sides_understand_what_they_have_agreed_on(
    own: int | None, theirs: Any, forgets: tuple[bool, bool], messages: list[bytes]
) -> None:
    factory = ClientPerMessageDeflateFactory(*forgets, own, theirs)
    parts = [f"{name}={value}" if value else name for name, value in factory.get_request_params()]
    agreement = agree(["; ".join(["permessage-deflate", *parts]).encode()])
    assert agreement is not None
    ((_, parameters),) = parse_extension(agreement.answer.decode())
    client = factory.process_response_params(parameters, [])
    deflater, inflater = Deflater(agreement), Inflater(agreement)
    for message in messages:
        back = client.decode(Frame(Opcode.BINARY, deflater.deflate(message), rsv1=True))
        assert back.data == message
        sent = client.encode(Frame(Opcode.BINARY, message))
        assert inflater.inflate(bytes(sent.data), len(message), is_last=True) == message


def test_no_more_comes_out_than_it_may() -> None:
    bomb = Deflater(PLAIN).deflate(b"\0" * 10_000_000)
    inflated = Inflater(PLAIN).inflate(bomb, 1000, is_last=True)
    assert inflated is not None
    assert len(inflated) == 1001


def test_a_final_block_is_understood_as_in_the_rfc() -> None:
    """RFC 7692 §7.2.3.4, twice: after it both sides begin anew."""
    inflater = Inflater(PLAIN)
    for _ in range(2):
        payload = bytes.fromhex("f348cdc9c9070000")
        assert inflater.inflate(payload, 100, is_last=True) == b"Hello"


def test_blocks_without_compression_are_understood() -> None:
    """RFC 7692 §7.2.3.3, and §7.2.3.5: two blocks."""
    inflater = Inflater(PLAIN)
    assert inflater.inflate(bytes.fromhex("000500faff48656c6c6f00"), 100, is_last=True) == b"Hello"
    assert inflater.inflate(bytes.fromhex("f248050000 00ffffcac9c90700"), 100, is_last=True) == b"Hello"


FINAL = zlib.compress(b"x", wbits=-15)


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([b"\xff\xff"], "no deflate at all"),
        ([FINAL + b"more"], "data behind a final block"),
        ([FINAL, b"more"], "a fragment behind a final block"),
    ],
)
def test_what_is_not_deflated_is_a_protocol_error(pieces: list[bytes], why: str) -> None:
    said = b""
    for index, piece in enumerate(pieces):
        opcode = Opcode.BINARY if index == 0 else Opcode.CONT
        frame = bytearray(Frame(opcode, piece, fin=index == len(pieces) - 1).serialize(mask=True))
        frame[0] |= 0x40 if index == 0 else 0
        said += frame
    with pytest.raises(FrameError) as caught:
        FrameReader([], LIMIT, Inflater(PLAIN)).feed(said)
    assert caught.value.code == 1002, why


def test_a_continuation_must_not_say_that_it_is_compressed() -> None:
    client = Client(deflates=True)
    reader = FrameReader([], LIMIT, Inflater(PLAIN))
    reader.feed(client.frame(Opcode.TEXT, b"x", fin=False))
    bad = bytearray(client.frame(Opcode.CONT, b"y"))
    bad[0] |= 0x40
    with pytest.raises(FrameError, match="reserved"):
        reader.feed(bytes(bad))


def test_a_plain_message_between_compressed_ones_is_plain() -> None:
    client, plain = Client(deflates=True), Client()
    said = client.frame(Opcode.TEXT, b"one") + plain.message(Opcode.TEXT, [b"t", b"wo"])
    assert read([said + client.frame(Opcode.TEXT, b"one")], deflates=True) == ["one", "two", "one"]


def test_compressed_fragments_count_as_what_came_out() -> None:
    client = Client(deflates=True)
    said = client.message(Opcode.BINARY, [b"\0" * (LIMIT // 2), b"\0" * (LIMIT // 2), b"\0"])
    with pytest.raises(FrameError, match="too big"):
        read([said], deflates=True)
