"""Metrics as Prometheus reads them, by its own parser."""

from __future__ import annotations

import math
from typing import Any

import pytest

from prefork import control
from prefork.latency import bucket_of
from prefork.observe.figures import Looks
from prefork.observe.metrics import prometheus
from prefork.observe.usage import Usage
from tests.unit.test_figures import look, worker

parser = pytest.importorskip("prometheus_client.parser")


def read(**more: Any) -> dict[str, list[Any]]:
    """The samples of a page, by name."""
    reports = look(
        1000,
        worker(1, 8, 900, in_flight=2, connections=3),
        worker(2, 0, 0, phase="booting", statuses=(), latencies=(), pid=None),
        **{
            "name": 'shop:"app"\\',
            "version": "1",
            "replaced": {"crash": 2, "reload": 4},
            "queued": 5,
            **more,
        },
    )
    text = prometheus(Looks().add(reports), {501: Usage(None, 4096)})
    found: dict[str, list[Any]] = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_what_is_told() -> None:
    """Requests by class, what is going on, restarts by cause, memory."""
    found = read(gone_statuses=(0, 0, 2, 0, 0, 7))
    statuses = {labels["status"]: value for labels, value in found["prefork_requests_total"]}
    assert statuses == {"1xx": 0, "2xx": 10, "3xx": 0, "4xx": 0, "5xx": 7}
    assert found["prefork_requests_in_flight"] == [({}, 2)]
    assert found["prefork_connections"] == [({}, 3)]
    assert found["prefork_queue_depth"] == [({}, 5)]
    assert ({"cause": "crash"}, 2) in found["prefork_worker_restarts_total"]
    assert found["prefork_generation"] == [({}, 1)]
    assert found["prefork_workers"] == [({"phase": "booting"}, 1), ({"phase": "ready"}, 1)]
    assert found["prefork_worker_memory_pss_bytes"] == [({"slot": "0", "pid": "501"}, 4096)]
    assert found["prefork_info"] == [({"version": "1", "application": 'shop:"app"\\'}, 1)]


def test_what_is_refused_is_told_where_it_may_be() -> None:
    """And nothing of it where the option is off."""
    refused = control.RefusalReport("GET /report", 3, 60.0)
    found = read(refused=(refused,), refused_requests=7)
    assert found["prefork_refused_requests_total"] == [({}, 7)]
    assert found["prefork_refused"] == [({}, 1)]
    assert "prefork_refused" not in read()


def test_the_histogram() -> None:
    """Cumulative, to infinity, and its sum is right to within a bucket."""
    found = read(gone_latencies=(4,))
    buckets = [
        (float(labels["le"]), value) for labels, value in found["prefork_request_duration_seconds_bucket"]
    ]
    assert buckets == sorted(buckets)
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)
    assert buckets[0] == (pytest.approx(65.5e-6, rel=0.01), 4)
    assert buckets[-1] == (math.inf, 12)
    assert found["prefork_request_duration_seconds_count"] == [({}, 12)]
    ((_, total_s),) = found["prefork_request_duration_seconds_sum"]
    assert total_s == pytest.approx(8 * 0.001, rel=0.2)


def test_every_latency_is_in_the_buckets() -> None:
    """The longest one, too."""
    counts = [0] * (bucket_of(10**15) + 1)
    counts[-1] = 3
    found = read(gone_latencies=tuple(counts))
    assert found["prefork_request_duration_seconds_bucket"][-1][1] == 11


def test_what_is_not_known_is_left_out() -> None:
    """A queue that the kernel does not tell of is not 0."""
    assert "prefork_queue_depth" not in read(queued=None)
