"""CPU and memory of processes: a share since the look before; memory looked at no more than it must be."""

from __future__ import annotations

import os

from prefork.observe.usage import PSS_EVERY_S, Usage, Usages
from prefork.system import Meter


class FakeMeter:
    def __init__(self) -> None:
        self.ticks = {1: 100}
        self.pss = {1: 5000}
        self.walks = 0

    def cpu_ticks(self, pid: int) -> int:
        return self.ticks.get(pid, 0)

    def pss_bytes(self, pid: int) -> int:
        self.walks += 1
        return self.pss.get(pid, 0)


def test_a_share_of_a_cpu() -> None:
    """Since the look before; the first knows none."""
    meter = FakeMeter()
    usages = Usages(meter, ticks_per_s=100)
    assert usages.look([1], 10.0) == {1: Usage(None, 5000)}
    meter.ticks[1] += 50
    assert usages.look([1], 12.0) == {1: Usage(0.25, 5000)}


def test_memory_is_read_anew_after_a_while_and_only_of_who_has_run() -> None:
    """The kernel walks its page tables for it."""
    meter = FakeMeter()
    usages = Usages(meter, ticks_per_s=100)
    usages.look([1], 0.0)
    meter.pss[1] = 6000
    assert usages.look([1], PSS_EVERY_S)[1].pss_bytes == 5000
    meter.ticks[1] += 1
    assert usages.look([1], PSS_EVERY_S + 1)[1].pss_bytes == 6000
    meter.ticks[1] += 1
    assert usages.look([1], PSS_EVERY_S + 2)[1].pss_bytes == 6000
    assert meter.walks == 2


def test_who_is_gone_is_forgotten() -> None:
    """And who cannot be seen has no memory, rather than none at all."""
    meter = FakeMeter()
    usages = Usages(meter, ticks_per_s=100)
    usages.look([1], 0.0)
    assert usages.look([2], 1.0) == {2: Usage(None, None)}
    assert list(usages._seen) == [2]


def test_this_process() -> None:
    """As the kernel tells."""
    found = Usages(Meter()).look([os.getpid()], 0.0)
    assert (found[os.getpid()].pss_bytes or 0) > 1_000_000
