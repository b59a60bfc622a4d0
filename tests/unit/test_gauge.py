"""What the plan is told of memory, and how little is looked at for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefork.master import events as e
from prefork.master.gauge import Gauge
from prefork.memory import memory_limit_bytes
from prefork.system import Meter


class FakeMeter:
    """Processes of so many bytes; notes whose PSS was read."""

    def __init__(self, **_: int) -> None:
        self.rss: dict[int, int] = {}
        self.pss: dict[int, int] = {}
        self.ticks: dict[int, int] = {}
        self.walked: list[int] = []

    def rss_bytes(self, pid: int) -> int:
        return self.rss.get(pid, 0)

    def pss_bytes(self, pid: int) -> int:
        self.walked.append(pid)
        return self.pss.get(pid, 0)

    def cpu_ticks(self, pid: int) -> int:
        return self.ticks.get(pid, 0)


@pytest.fixture
def meter() -> FakeMeter:
    made = FakeMeter()
    made.rss = {501: 100, 502: 50, 400: 30}
    made.pss = {501: 80, 502: 20, 400: 10}
    return made


class TestGauge:
    def test_below_its_bound_nobody_is_walked(self, meter: FakeMeter) -> None:
        """RSS is never less than PSS."""
        seen = Gauge(meter, 100, 180).read({1: 501, 2: 502}, [400])
        assert meter.walked == []
        assert seen == e.MemorySeen(((1, 100), (2, 50)), 30)

    def test_above_it_the_share_counts(self, meter: FakeMeter) -> None:
        """Of that process only."""
        seen = Gauge(meter, 90, None).read({1: 501, 2: 502}, [400])
        assert meter.walked == [501]
        assert seen == e.MemorySeen(((1, 80), (2, 50)), 30)

    def test_a_fleet_above_its_budget_is_walked_whole(self, meter: FakeMeter) -> None:
        """A sum of shares."""
        seen = Gauge(meter, None, 179).read({1: 501, 2: 502}, [400])
        assert seen == e.MemorySeen(((1, 80), (2, 20)), 10)

    def test_who_has_not_run_is_not_walked_again(self, meter: FakeMeter) -> None:
        """It cannot have grown; once it has run it is looked at."""
        gauge = Gauge(meter, 90, None)
        for _ in range(3):
            gauge.read({1: 501}, [])
        assert meter.walked == [501]
        meter.ticks[501] = 1
        meter.pss[501] = 95
        assert gauge.read({1: 501}, []) == e.MemorySeen(((1, 95),), 0)

    def test_who_is_gone_is_forgotten(self, meter: FakeMeter) -> None:
        """Its pid may be another's next time."""
        gauge = Gauge(meter, 90, None)
        gauge.read({1: 501}, [])
        gauge.read({}, [])
        gauge.read({2: 501}, [])
        assert meter.walked == [501, 501]


class TestMeter:
    def test_of_this_process(self) -> None:
        """Something, and shares are not more than the whole."""
        meter, pid = Meter(), os.getpid()
        assert 0 < meter.pss_bytes(pid) <= meter.rss_bytes(pid) * 1.1
        assert meter.rss_bytes(pid) > 5_000_000
        assert meter.cpu_ticks(pid) > 0

    def test_of_nobody(self) -> None:
        """Nothing."""
        meter = Meter()
        assert (meter.rss_bytes(0), meter.pss_bytes(0), meter.cpu_ticks(0)) == (0, 0, 0)


class TestLimit:
    @staticmethod
    def mounts(root: Path, groups: str, **files: str) -> tuple[Path, Path]:
        proc, cgroup = root / "proc", root / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "cgroup").write_text(groups)
        (proc / "meminfo").write_text("MemTotal:        2048 kB\nMemFree:  5 kB\n")
        for name, text in files.items():
            path = cgroup / name.replace("__", "/").replace("memory_max", "memory.max")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return proc, cgroup

    def test_the_tightest_group_counts(self, tmp_path: Path) -> None:
        """On the way to the root."""
        files = {"a__memory_max": "1000000\n", "a__b__memory_max": "max\n"}
        assert memory_limit_bytes(*self.mounts(tmp_path, "0::/a/b\n", **files)) == 1_000_000

    def test_version_1(self, tmp_path: Path) -> None:
        """Its word for none is a very large number."""
        proc, cgroup = self.mounts(tmp_path, "4:memory:/x\n0::/\n")
        (cgroup / "memory" / "x").mkdir(parents=True)
        (cgroup / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
        assert memory_limit_bytes(proc, cgroup) == 2048 * 1024
        (cgroup / "memory" / "x" / "memory.limit_in_bytes").write_text("4096\n")
        assert memory_limit_bytes(proc, cgroup) == 4096

    def test_no_limit_is_the_machine(self, tmp_path: Path) -> None:
        """And nothing at all is nothing."""
        assert memory_limit_bytes(*self.mounts(tmp_path, "0::/\n")) == 2048 * 1024
        assert memory_limit_bytes(tmp_path / "no", tmp_path / "no") is None
