"""Where a worker stands, as text."""

from __future__ import annotations

import asyncio
import json
import sys
import threading

from prefork.channel import DETAILS_BYTES
from prefork.worker.stacks import stacks
from prefork.worker.wear import Wear


def floor() -> str:
    """Stands where the worker's own code begins."""
    return above()


def above() -> str:
    return stacks(sys._getframe(), floor.__code__)


def test_the_main_thread_from_the_workers_code_on() -> None:
    """What was forked below is none of the worker's."""
    text = floor()
    assert "thread MainThread:" in text
    assert "in above" in text
    assert "in floor" not in text


def test_every_thread_by_its_name() -> None:
    """Those that wait, too."""
    begun, leave = threading.Event(), threading.Event()

    def wait_for_godot() -> None:
        begun.set()
        leave.wait()

    thread = threading.Thread(target=wait_for_godot, name="the waiting one")
    thread.start()
    begun.wait()
    try:
        text = floor()
    finally:
        leave.set()
        thread.join()
    assert "thread the waiting one:" in text
    assert "in wait_for_godot" in text


def test_every_task_down_to_what_it_waits_for() -> None:
    """Not only its first coroutine."""

    async def inner(gate: asyncio.Event) -> None:
        await gate.wait()

    async def outer(gate: asyncio.Event) -> None:
        await inner(gate)

    async def main() -> str:
        gate = asyncio.Event()
        task = asyncio.create_task(outer(gate), name="the hung one")
        await asyncio.sleep(0)
        text = floor()
        gate.set()
        await task
        return text

    text = asyncio.run(main())
    task = text.partition("task the hung one:")[2].partition("task ")[0]
    assert task.index("in outer") < task.index("in inner") < task.index("in wait")


def test_it_fits_a_message() -> None:
    """However many there are; the threads come first."""

    async def main() -> str:
        gate = asyncio.Event()
        tasks = [asyncio.create_task(gate.wait()) for _ in range(1000)]
        await asyncio.sleep(0)
        text = floor()
        gate.set()
        await asyncio.gather(*tasks)
        return text

    text = asyncio.run(main())
    assert len(json.dumps(text)) <= DETAILS_BYTES
    assert text.startswith("thread ")


def test_wear_is_said_once() -> None:
    """And names what was asked of the worker."""
    said: list[str] = []
    wear = Wear(200, said.append)
    wear.say_worn()
    wear.say_worn()
    assert said == ["it has served 200 requests"]
