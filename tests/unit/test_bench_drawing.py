"""Pictures of a benchmark, where matplotlib is (`make bench` installs it)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.run.figures import Figure, Run

drawing = pytest.importorskip(
    "benchmarks.run.drawing", reason="needs matplotlib, which `make bench` installs"
)

WHO = ("prefork ASGI", "Go fasthttp prefork", "nginx return 200", "uvicorn", "granian RSGI", "gunicorn sync")
FIGURES = [
    Figure(
        "http",
        "hello",
        "hello world, 64 connections",
        "CPU time of a request",
        who,
        "µs",
        (value, value * 2.0),
    )
    for value, who in enumerate(WHO, 10)
]
FAILED = Figure(
    "http", "hello", *FIGURES[0].what.split(": "), "hypercorn", "", failure="did not start: <no> & why"
)


def test_each_colour_has_its_twin_for_dark_pages(tmp_path: Path) -> None:
    """What has none would be dark on dark; files are small enough to be kept beside a page."""
    paths = list(drawing.draw(Run("2026-11-27", "2 cores", figures=[*FIGURES, FAILED]), tmp_path))
    assert [path.name for path in paths] == ["overview.svg", "http-hello-64.svg"]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:fill|stroke): (#\w+)", text.partition("</style>")[2])) <= set(drawing.DARK)
        assert len(text) < 100_000
    assert "did not start: &lt;no&gt; &amp; why" in text


def test_a_picture_is_the_same_for_the_same_run(tmp_path: Path) -> None:
    """Or each commit of a page would change all of them."""
    run = Run("2026-11-27", "2 cores", figures=FIGURES)
    first, second = (
        [path.read_bytes() for path in drawing.draw(run, tmp_path / name)] for name in ("first", "second")
    )
    assert first == second
