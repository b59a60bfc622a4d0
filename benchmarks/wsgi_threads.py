"""How many threads suit a WSGI application: `python -m benchmarks.wsgi_threads [--quick]`. Needs Django and wrk.

Applications, each under 2 workers and 32 connections, with 1 (inline), 2, 4, 8 and 16 threads a worker:

* `waiting`: Django, 5 ms of sleep in place of a database, then a page of 50 rows: what most applications are like;
* `computing`: the same without the sleep;
* `hello`: 13 bytes, which costs nothing but the server.

The default of `--threads` is what this says: the fewest threads beyond which `waiting` gains little.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.http.load import PLAIN, LoadError, Sample
from benchmarks.http.running import DidNotStartError, running, settle
from benchmarks.http.subjects import Launch, Subject
from benchmarks.run.places import ROOT

WORKERS: Final = 2
CONNECTIONS: Final = 32
THREADS: Final = (1, 2, 4, 8, 16)
PAUSE_S: Final = 0.005
ROWS: Final = 50
GREETING: Final = b"Hello, World!"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def hello() -> Application:
    """Make the application that answers with 13 bytes."""
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(GREETING)))]

    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return [GREETING]

    return app


def waiting() -> Application:
    """Make the Django application that waits before it renders its page."""
    return _django(PAUSE_S)


def computing() -> Application:
    """Make the Django application that only renders its page."""
    return _django(0)


def _django(pause_s: float) -> Application:
    import django  # noqa: PLC0415  (only in what is served)
    from django.conf import settings  # noqa: PLC0415
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415
    from django.http import HttpRequest, HttpResponse  # noqa: PLC0415
    from django.template import Context, Engine  # noqa: PLC0415
    from django.urls import path  # noqa: PLC0415

    page = Engine().from_string(
        "<table>{% for row in rows %}<tr><td>{{ row.number }}</td><td>{{ row.name }}</td></tr>{% endfor %}</table>"
    )

    def view(_request: HttpRequest) -> HttpResponse:
        if pause_s:
            time.sleep(pause_s)
        rows = [{"number": number, "name": f"name <{number}>"} for number in range(ROWS)]
        return HttpResponse(page.render(Context({"rows": rows})))

    middleware = ("security.SecurityMiddleware", "common.CommonMiddleware", "csrf.CsrfViewMiddleware")
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="a benchmark's",  # noqa: S106
        ROOT_URLCONF=type("Urls", (), {"urlpatterns": [path("", view)]}),
        MIDDLEWARE=[f"django.middleware.{name}" for name in middleware],
    )
    django.setup()
    application: Application = get_wsgi_application()
    return application


def _command(threads: int) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        words = [launch.app, "--factory", "--interface", "wsgi", "--app-dir", str(ROOT)]
        words += ["--bind", f"127.0.0.1:{launch.port}", "--workers", str(launch.workers)]
        return [sys.executable, "-m", "prefork", *words, "--threads", str(threads)]

    return command


def measure(app: str, threads: int, seconds: int, directory: Path) -> Sample:
    """One run of one application with so many threads. Raises DidNotStartError, LoadError."""
    subject = Subject(f"prefork WSGI {threads} threads", _command(threads), is_ours=True)
    with running(subject, f"benchmarks.wsgi_threads:{app}", WORKERS, directory) as target:
        target.wait_for_answer()
        settle()
        PLAIN(target, CONNECTIONS, 1, directory)
        sample = PLAIN(target, CONNECTIONS, seconds, directory)
    if sample.errors:
        raise LoadError(f"{sample.errors} of {sample.served} requests failed")
    return sample


def main(arguments: list[str] | None = None) -> int:
    """Measure all, and print the table; 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wsgi_threads", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of each, of one second")
    is_quick = parser.parse_args(arguments).quick
    rounds, seconds = (1, 1) if is_quick else (3, 3)
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, Python {platform.python_version()}, {WORKERS} workers, {CONNECTIONS} connections")
    print(f"{'application':<12}{'threads':>8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}")
    failures = 0
    with tempfile.TemporaryDirectory() as directory:
        for app in ("waiting", "computing", "hello"):
            found: dict[int, list[Sample]] = {threads: [] for threads in THREADS}
            for _ in range(rounds):
                for threads, samples in found.items():
                    try:
                        samples.append(measure(app, threads, seconds, Path(directory)))
                    except (DidNotStartError, LoadError) as error:
                        failures += 1
                        print(f"{app}, {threads} threads: {error}")
            for threads, samples in found.items():
                if samples:
                    _print(app, threads, samples)
    return 1 if failures else 0


def _print(app: str, threads: int, samples: list[Sample]) -> None:
    rate, p50, p99, cost = (
        median(getattr(each, name) for each in samples)
        for name in ("per_second", "p50_ms", "p99_ms", "cost_us")
    )
    print(f"{app:<12}{threads:>8}{rate:>12.0f}{p50:>9.2f}{p99:>9.2f}{cost:>9.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
