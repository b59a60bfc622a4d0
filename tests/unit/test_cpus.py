from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefork.cpus import usable_cpus

AFFINITY = 16


class Machine:
    """Fake mounts of procfs and of the control groups."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"

    def is_in(self, *lines: str) -> None:
        """The process's groups, as /proc/self/cgroup tells them."""
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def has(self, group: str, **files: str) -> None:
        """A group with files in it; `cpu_max` stands for cpu.max."""
        folder = self.cgroup / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("cpu_", "cpu.", 1)).write_text(text + "\n")

    def cpus(self) -> int:
        return usable_cpus(self.proc, self.cgroup)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of 16 CPUs, all of which we may be scheduled on."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(AFFINITY)), raising=False)
    return Machine(tmp_path)


class TestWithoutAQuota:
    def test_the_affinity_counts(self, machine: Machine) -> None:
        """No control group is mounted at all."""
        assert machine.cpus() == AFFINITY

    def test_where_there_is_no_affinity_the_cpus_count(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on macOS; and one if even that is not known."""
        monkeypatch.delattr(os, "sched_getaffinity")
        monkeypatch.setattr(os, "cpu_count", lambda: 6)
        assert machine.cpus() == 6
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert machine.cpus() == 1

    def test_max_is_no_quota(self, machine: Machine) -> None:
        """Version 2 says "max" and a period."""
        machine.is_in("0::/")
        machine.has(".", cpu_max="max 100000")
        assert machine.cpus() == AFFINITY

    def test_minus_one_is_no_quota(self, machine: Machine) -> None:
        """Version 1 says it like that."""
        machine.is_in("4:cpu,cpuacct:/")
        machine.has("cpu", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
        assert machine.cpus() == AFFINITY

    def test_a_group_that_cannot_be_seen_is_none(self, machine: Machine) -> None:
        """A container whose own path is the host's: nothing is there to read."""
        machine.is_in("0::/system.slice/docker-1234.scope")
        assert machine.cpus() == AFFINITY


class TestVersion2:
    @pytest.mark.parametrize(
        ("cpu_max", "cpus"),
        [
            ("200000 100000", 2),
            ("150000 100000", 2),
            ("50000 100000", 1),
            ("1000 100000", 1),
            ("100001 100000", 2),
            ("400000 50000", 8),
            ("9900000 100000", AFFINITY),
        ],
    )
    def test_a_quota_is_rounded_up_and_bounded_by_the_affinity(
        self, machine: Machine, cpu_max: str, cpus: int
    ) -> None:
        """Half a CPU is one worker, one and a half are two, and ninety-nine are what there is."""
        machine.is_in("0::/app")
        machine.has("app", cpu_max=cpu_max)
        assert machine.cpus() == cpus

    def test_the_tightest_of_nested_quotas_counts(self, machine: Machine) -> None:
        """A pod's group lies in its slice's, and both bind."""
        machine.is_in("0::/kube/pod/app")
        machine.has("kube", cpu_max="800000 100000")
        machine.has("kube/pod", cpu_max="300000 100000")
        machine.has("kube/pod/app", cpu_max="max 100000")
        assert machine.cpus() == 3

    def test_a_quota_on_the_root_of_a_container_counts(self, machine: Machine) -> None:
        """Inside a control-group namespace the own group is "/"."""
        machine.is_in("0::/")
        machine.has(".", cpu_max="250000 100000")
        assert machine.cpus() == 3

    def test_a_neighbours_quota_does_not(self, machine: Machine) -> None:
        """Only the way from our group to the root is walked."""
        machine.is_in("0::/a/ours")
        machine.has("a/theirs", cpu_max="100000 100000")
        machine.has("b", cpu_max="100000 100000")
        machine.has("a/ours", cpu_max="max 100000")
        assert machine.cpus() == AFFINITY

    def test_a_path_above_the_root_is_not_followed_for_ever(self, machine: Machine) -> None:
        """A process that was moved in from outside has "/.." in its path."""
        machine.is_in("0::/../other")
        machine.has(".", cpu_max="300000 100000")
        assert machine.cpus() == 3


class TestVersion1:
    def test_the_cpu_controllers_quota_counts(self, machine: Machine) -> None:
        """Whatever its partner is; other controllers are not asked."""
        machine.is_in("11:memory:/app", "4:cpu,cpuacct:/app", "1:name=systemd:/app")
        machine.has("cpu/app", cpu_cfs_quota_us="350000", cpu_cfs_period_us="100000")
        assert machine.cpus() == 4

    def test_nested_quotas(self, machine: Machine) -> None:
        """The tightest on the way to the root, as in version 2."""
        machine.is_in("4:cpu:/a/b")
        machine.has("cpu/a/b", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
        machine.has("cpu/a", cpu_cfs_quota_us="200000", cpu_cfs_period_us="100000")
        assert machine.cpus() == 2

    def test_a_container_that_sees_the_hosts_path(self, machine: Machine) -> None:
        """Docker mounts the group's own folder as the root: its quota lies there."""
        machine.is_in("4:cpu,cpuacct:/docker/1234")
        machine.has("cpu", cpu_cfs_quota_us="100000", cpu_cfs_period_us="100000")
        assert machine.cpus() == 1

    def test_a_cpuset_is_not_the_cpu_controller(self, machine: Machine) -> None:
        """Its effect is in the affinity already."""
        machine.is_in("3:cpuset:/app", "4:cpuacct:/app")
        machine.has("cpu/app", cpu_cfs_quota_us="100000", cpu_cfs_period_us="100000")
        assert machine.cpus() == AFFINITY

    def test_both_versions_at_once(self, machine: Machine) -> None:
        """A hybrid mount: version 2 without the controller, version 1 with it."""
        machine.is_in("4:cpu,cpuacct:/app", "0::/app")
        machine.has("cpu/app", cpu_cfs_quota_us="500000", cpu_cfs_period_us="100000")
        assert machine.cpus() == 5


def test_this_machine_has_a_cpu() -> None:
    """Whatever it is, there is an answer, and not more than the machine has."""
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
