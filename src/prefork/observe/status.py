"""A fleet's figures as one JSON object, for the dashboard, for `preforkctl top --json`, and for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from prefork.control import StatusReport, WorkerReport
from prefork.observe.figures import Figures, Pace
from prefork.observe.usage import Usage

_DRAINING: Final = frozenset({"stopping", "resting"})


def is_ready(report: StatusReport) -> bool:
    """Whether somebody should send requests here: a worker accepts, and the fleet is not about to leave."""
    return report.ready >= 1 and report.state not in _DRAINING


def as_json(figures: Figures, usages: Mapping[int, Usage]) -> dict[str, Any]:
    """All of it. Times in seconds, or as their names say."""
    report = figures.report
    return {
        "state": report.state,
        "is_ready": is_ready(report),
        "name": report.name,
        "version": report.version,
        "addresses": list(report.addresses),
        "pid": report.pid,
        "uptime_s": report.uptime_s,
        "now_ms": report.now_ms,
        "generation": report.generation,
        "incoming": report.incoming,
        "wanted": report.wanted,
        "ready": report.ready,
        "requests": figures.requests,
        "statuses": _by_class(figures.statuses),
        "in_flight": figures.in_flight,
        "connections": figures.connections,
        "queue_depth": report.queued,
        "replaced": report.replaced,
        "refused_requests": report.refused_requests,
        "refused": [{"what": x.what, "kills": x.kills, "left_s": x.left_s} for x in report.refused],
        "memory_pss_bytes": sum(usage.pss_bytes or 0 for usage in usages.values()) or None,
        **_pace(figures.fleet),
        "workers": [_worker(worker, figures, usages) for worker in report.workers],
        "events": [
            {"number": event.number, "ago_s": event.ago_s, "kind": event.kind, "text": event.text}
            for event in report.events
        ],
    }


def _worker(worker: WorkerReport, figures: Figures, usages: Mapping[int, Usage]) -> dict[str, Any]:
    usage = usages.get(worker.pid or 0, Usage(None, None))
    return {
        "serial": worker.serial,
        "slot": worker.slot,
        "pid": worker.pid,
        "generation": worker.generation,
        "phase": worker.phase,
        "age_s": worker.age_s,
        "worn": worker.worn,
        "requests": worker.requests,
        "statuses": _by_class(worker.statuses),
        "in_flight": worker.in_flight,
        "connections": worker.connections,
        "is_awake": worker.is_awake,
        "cpu_share": None if usage.cpu_share is None else round(usage.cpu_share, 4),
        "memory_pss_bytes": usage.pss_bytes,
        **_pace(figures.workers.get(worker.serial, Pace())),
    }


def _pace(pace: Pace) -> dict[str, Any]:
    return {
        "requests_per_s": None if pace.requests_per_s is None else round(pace.requests_per_s, 2),
        "p50_s": None if pace.p50_s is None else round(pace.p50_s, 6),
        "p99_s": None if pace.p99_s is None else round(pace.p99_s, 6),
    }


def _by_class(statuses: tuple[int, ...]) -> dict[str, int]:
    return {f"{digit}xx": count for digit, count in enumerate(statuses) if digit}
