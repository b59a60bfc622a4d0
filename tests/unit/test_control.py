"""What is said on the control socket, line by line: written, read again, and refused where it is none of it."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest

from prefork import control
from prefork.control import ControlError, decode_answer, decode_request, encode, name_of

REQUESTS: list[control.Request] = [
    control.Status(),
    control.Reload(),
    control.Scale(4),
    control.Recycle("slot:1"),
    control.Stacks("4711"),
    control.Upgrade(),
    control.Stop(),
    control.Stop(is_fast=True),
    control.LogLevel("debug"),
    control.Forgive(),
]
WORKER = control.WorkerReport(
    1, 0, 4711, 2, "ready", 1.5, "old", 3, 2, True, 12345, (0, 0, 7, 0, 1, 0), (1, 0, 6)
)
ANSWERS: list[control.Answer] = [
    control.Progress("reload: starting generation 2 \u2603"),
    control.Done("done"),
    control.Failed("two\nlines"),
    control.StacksReport("thread MainThread:\n"),
    control.StatusReport(
        "serving",
        2,
        3,
        1,
        1,
        (WORKER,),
        5,
        "0.1",
        "app:app",
        ("http://x", "unix:y"),
        2.5,
        "info",
        now_ms=12400,
        gone_statuses=(0, 0, 9, 0, 0, 1),
        gone_latencies=(4, 5),
        replaced={"crash": 2},
        events=(control.EventReport(3, 0.25, "crash", "worker 0 \u2603"),),
        queued=4,
        refused=(control.RefusalReport("GET /report?…", 3, 1800.5),),
        refused_requests=7,
    ),
    control.StatusReport("starting", 1, None, 1, 0, (control.WorkerReport(1, 0, None, 1, "spawning", None),)),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=repr)
def test_a_request_is_read_as_it_was_written(request_: control.Request) -> None:
    """One line."""
    line = encode(request_)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_request(line) == request_


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_an_answer_is_read_as_it_was_written(answer: control.Answer) -> None:
    """One line, whatever is in it."""
    line = encode(answer)
    assert line.count(b"\n") == 1
    assert decode_answer(line) == answer


def test_these_are_all_there_are() -> None:
    """The lists above; every answer but one is the last word; names differ."""
    kinds = [*typing.get_args(control.Request), *typing.get_args(control.Answer)]
    assert {type(x) for x in (*REQUESTS, *ANSWERS)} == set(kinds)
    assert set(typing.get_args(control.Answer)) - set(control.FINAL) == {control.Progress}
    assert len({name_of(kind) for kind in kinds}) == len(kinds)
    assert name_of(control.LogLevel) == "log-level"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "no JSON"),
        (b"reload", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", '"request"'),
        (b'"reload"', '"request"'),
        (b"{}", '"request"'),
        (b'{"request": 5}', '"request"'),
        (b'{"request": "relaod"}', "did you mean 'reload'?"),
        (b'{"request": "make tea"}', "there is no request 'make tea'"),
        (b'{"request": "scale"}', "scale needs 'workers'"),
        (b'{"request": "scale", "workers": "4"}', "'workers' cannot be '4'"),
        (b'{"request": "scale", "workers": true}', "'workers' cannot be True"),
        (b'{"request": "scale", "workers": 1.5}', "'workers' cannot be 1.5"),
        (b'{"request": "scale", "workers": null}', "'workers' cannot be None"),
        (b'{"request": "stop", "is_fast": 1}', "'is_fast' cannot be 1"),
        (b'{"request": "recycle", "worker": 0}', "'worker' cannot be 0"),
    ],
)
def test_what_is_no_request(line: bytes, said: str) -> None:
    """What was wrong with it."""
    with pytest.raises(ControlError) as caught:
        decode_request(line)
    assert said in str(caught.value)


@pytest.mark.parametrize("workers", [5, [5], [{"serial": "x"}], None])
def test_a_status_that_is_none(workers: Any) -> None:
    """Nothing of it is believed."""
    data = json.loads(encode(ANSWERS[-1])) | {"workers": workers}
    with pytest.raises(ControlError):
        decode_answer(json.dumps(data).encode())


def test_what_is_not_known_is_ignored() -> None:
    """A newer side says more."""
    assert decode_request(b'{"request": "reload", "tomorrow": 10}') == control.Reload()
