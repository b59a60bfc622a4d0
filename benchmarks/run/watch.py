"""Who watches a run: a bar with the time left on a terminal, lines elsewhere.

Not here: the estimate itself (steps.py).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Protocol, Self

from benchmarks.run.steps import Estimate, Step, clock

LINE_EVERY_S: Final = 10.0
"""Without a terminal: at most one line of progress in so long."""


class Display(Protocol):
    """Where it is shown."""

    def say(self, line: str) -> None:
        """A line that stays."""

    def show(self, estimate: Estimate, now: str) -> None:
        """What is done, what is left, and what is being done now."""

    def close(self) -> None:
        """No more."""


class Lines:
    """For a file, a pipe, a log of CI."""

    def __init__(
        self, now_s: Callable[[], float] = time.monotonic, write: Callable[[str], object] = print
    ) -> None:
        self._now_s = now_s
        self._write = write
        self._last_s = -LINE_EVERY_S

    def say(self, line: str) -> None:
        self._write(line)
        sys.stdout.flush()

    def show(self, estimate: Estimate, now: str) -> None:
        if self._now_s() - self._last_s >= LINE_EVERY_S:
            self._last_s = self._now_s()
            self.say(f"[{estimate.share:4.0%}, {clock(estimate.left_s)} left] {now}")

    def close(self) -> None:
        pass


class Bar:
    """For a terminal. Needs rich."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  (only where there is a terminal)
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        columns = (
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f} %  {task.fields[left]} left  {task.description}"),
        )
        # Drawn when something is told, and not by a thread: this process forks.
        self._progress = Progress(
            *columns, console=Console(highlight=False), transient=True, auto_refresh=False
        )
        self._task = self._progress.add_task("", total=1.0, left="")
        self._progress.start()

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, soft_wrap=True)

    def show(self, estimate: Estimate, now: str) -> None:
        self._progress.update(
            self._task, completed=estimate.share, left=clock(estimate.left_s), description=now
        )
        self._progress.refresh()

    def close(self) -> None:
        self._progress.stop()


def display() -> Display:
    """A bar if there is a terminal to draw it on (and rich to draw it), else lines."""
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            return Bar()
    return Lines()


class Watch:
    """What a part tells while it measures. A context manager; nothing is shown after its end."""

    def __init__(
        self, steps: Iterable[Step], shown: Display, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._steps = list(steps)
        self._by_name = {(step.part, step.scenario, step.who): step for step in self._steps}
        self.estimate = Estimate(self._steps)
        self._shown = shown
        self._now_s = now_s

    def say(self, line: Any = "") -> None:
        """A line for people."""
        self._shown.say(str(line))

    @contextlib.contextmanager
    def step(self, part: str, scenario: str, who: str) -> Iterator[None]:
        """One step of the plan, while it is done."""
        step = self._by_name.get((part, scenario, who), Step(part, scenario, who, 0.0))
        self._shown.show(self.estimate, f"{part} {scenario}: {who}")
        begun_s = self._now_s()
        try:
            yield
        finally:
            self.estimate.done(step, self._now_s() - begun_s)

    def close(self, part: str, scenario: str) -> None:
        """That scenario is over, whatever is left of its steps."""
        self.estimate.drop(part, scenario)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._shown.close()
