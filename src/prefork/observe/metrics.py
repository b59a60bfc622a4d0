"""A fleet's figures in Prometheus' text format, version 0.0.4. Pure.

Written by hand: sixty lines, and the admin process needs no library for it. Counters never go back, whoever dies; a new
master (USR2) begins anew, as a restart does, which Prometheus knows how to take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prefork.latency import BUCKETS, end_s
from prefork.observe.figures import Figures
from prefork.observe.usage import Usage

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS: Final = range(3, BUCKETS - 1, 4)
"""Buckets whose ends are shown: one in each doubling, 66 µs to some minutes. All ninety would be a lot of series."""


def prometheus(figures: Figures, usages: Mapping[int, Usage]) -> str:
    """The page for a scraper. `usages` by pid."""
    return "".join(f"{line}\n" for line in _lines(figures, usages))


def _lines(figures: Figures, usages: Mapping[int, Usage]) -> Iterator[str]:
    report = figures.report
    yield from _head("prefork_requests_total", "counter", "Answers, by the first digit of their status.")
    for digit, count in enumerate(figures.statuses):
        if digit or count:
            yield f'prefork_requests_total{{status="{f"{digit}xx" if digit else "other"}"}} {count}'
    yield from _histogram(figures.latencies)
    yield from _head("prefork_requests_in_flight", "gauge", "Requests whose application has not returned.")
    yield f"prefork_requests_in_flight {figures.in_flight}"
    yield from _head("prefork_connections", "gauge", "Open connections.")
    yield f"prefork_connections {figures.connections}"
    if report.queued is not None:
        yield from _head("prefork_queue_depth", "gauge", "TCP connections that wait to be accepted.")
        yield f"prefork_queue_depth {report.queued}"
    yield from _head("prefork_workers", "gauge", "Worker processes, by their phase.")
    phases = [worker.phase for worker in report.workers]
    for phase in sorted({"ready", *phases}):
        yield f'prefork_workers{{phase="{phase}"}} {phases.count(phase)}'
    yield from _head("prefork_workers_wanted", "gauge", "Workers that there are to be.")
    yield f"prefork_workers_wanted {report.wanted}"
    yield from _head("prefork_worker_restarts_total", "counter", "Workers that were replaced, by cause.")
    for cause, count in report.replaced.items():
        yield f'prefork_worker_restarts_total{{cause="{cause}"}} {count}'
    if report.refused_requests is not None:
        yield from _head(
            "prefork_refused_requests_total",
            "counter",
            "Requests refused, since their like have killed workers.",
        )
        yield f"prefork_refused_requests_total {report.refused_requests}"
        yield from _head("prefork_refused", "gauge", "Requests and routes that are being refused.")
        yield f"prefork_refused {len(report.refused)}"
    yield from _head("prefork_generation", "gauge", "The generation that serves: 1 plus the reloads.")
    yield f"prefork_generation {report.generation}"
    yield from _head("prefork_uptime_seconds", "gauge", "Age of the master.")
    yield f"prefork_uptime_seconds {report.uptime_s}"
    yield from _memory(figures, usages)
    yield from _head("prefork_info", "gauge", "What is served, by which version.")
    yield f'prefork_info{{version="{_escaped(report.version)}",application="{_escaped(report.name)}"}} 1'


def _histogram(latencies: Sequence[int]) -> Iterator[str]:
    name = "prefork_request_duration_seconds"
    yield from _head(
        name,
        "histogram",
        "Time from a request's head to the end of its answer; estimated from a sample where there are many.",
    )
    for bucket in BOUNDS:
        yield f'{name}_bucket{{le="{end_s(bucket):.6g}"}} {sum(latencies[: bucket + 1])}'
    yield f'{name}_bucket{{le="+Inf"}} {sum(latencies)}'
    yield f"{name}_sum {_sum_s(latencies):.6f}"
    yield f"{name}_count {sum(latencies)}"


def _sum_s(latencies: Sequence[int]) -> float:
    """All durations together, each taken for the middle of its bucket."""
    begin_s = total_s = 0.0
    for bucket, count in enumerate(latencies):
        until_s = end_s(bucket)
        total_s += count * (begin_s + until_s) / 2
        begin_s = until_s
    return total_s


def _memory(figures: Figures, usages: Mapping[int, Usage]) -> Iterator[str]:
    lines = []
    for worker in figures.report.workers:
        usage = usages.get(worker.pid or 0)
        if usage is not None and usage.pss_bytes is not None:
            lines.append(
                f'prefork_worker_memory_pss_bytes{{slot="{worker.slot}",pid="{worker.pid}"}} {usage.pss_bytes}'
            )
    if lines:
        yield from _head(
            "prefork_worker_memory_pss_bytes", "gauge", "Memory, shared pages counted by their share."
        )
        yield from lines


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
