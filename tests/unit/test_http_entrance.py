"""How much is kept of what came before."""

from __future__ import annotations

from typing import Any, cast

import pytest

from prefork.http.entrance import Entrance, Entrances
from prefork.http.exchange import Exchange
from prefork.http.limits import HttpLimits


class Answered:
    """As much of an exchange as is asked of one that is learnt."""

    pristine = None
    own: dict[str, Any] = {}  # noqa: RUF012  (nobody changes it)

    def __init__(self) -> None:
        self.scope = {"path": "/"}
        self.connection = self

    def renewed(self, scope: dict[str, Any], _connection: object) -> dict[str, Any]:
        return scope.copy()


def request(number: int, *, size_bytes: int = 0) -> bytes:
    """One of its own, headers and all."""
    return b"GET /%d HTTP/1.1\r\nHost: a\r\nX-A: %d%b\r\n\r\n" % (number, number, b"a" * size_bytes)


def learn(entrance: Entrance, data: bytes) -> None:
    """As if it had come, twice."""
    for _ in range(2):
        entrance.learn(data, cast(Exchange, Answered()))


def kept_bytes(entrance: Entrance) -> int:
    """How many bytes of requests it holds on to."""
    return sum(map(len, [*entrance.known, *entrance._blocks, *entrance._recent, *entrance._recent_blocks]))


def test_what_came_twice_is_kept_and_what_came_once_is_not() -> None:
    entrance = Entrances().open("way", {}, HttpLimits())
    learn(entrance, request(1))
    entrance.learn(request(2), cast(Exchange, Answered()))
    assert list(entrance.known) == [request(1)]
    assert entrance.alike(request(1).replace(b"/1", b"/x?y", 1)) is not None
    assert entrance.alike(request(2).replace(b"/2", b"/x?y", 1)) is None


def test_what_is_kept_is_bounded() -> None:
    """Ten thousand requests, none like another, each of them twice; and those that are too long not at all."""
    entrance = Entrances().open("way", {}, HttpLimits())
    for number in range(10_000):
        learn(entrance, request(number, size_bytes=3000))
        learn(entrance, request(number, size_bytes=4096))
    assert 0 < len(entrance.known) <= 256
    assert 0 < len(entrance._blocks) <= 256
    assert kept_bytes(entrance) <= 4 * 256 * 4096


@pytest.mark.parametrize("is_known_by_name", [True, False])
def test_one_more_way_than_are_remembered_costs_no_more_than_its_connection(
    *, is_known_by_name: bool
) -> None:
    """Addresses and ciphers without end, or a client with a certificate: a connection cannot fill MiB by itself."""
    entrances = Entrances()
    if is_known_by_name:
        for key in range(8):
            assert entrances.open(key, {}, HttpLimits()) is entrances.get(key)
    key = 8 if is_known_by_name else None
    alone = entrances.open(key, {}, HttpLimits())
    assert entrances.get(key) is None
    for number in range(100):
        learn(alone, request(number, size_bytes=3000))
    assert 0 < kept_bytes(alone) <= 8 * 4096


def test_what_one_connection_repeats_is_known_there() -> None:
    entrance = Entrances().open(None, {}, HttpLimits())
    learn(entrance, request(1))
    assert request(1) in entrance.known
