"""Past one machine: two hosts, HAProxy in front, Redis behind, a rolling update of both, and no request lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.process.two_hosts import HOSTS, TwoHosts, reason_to_skip, rolling_update

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    """Both hosts serving, seen by the balancer."""
    pytest.importorskip("redis")
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    with TwoHosts() as made:
        yield made


def test_a_rolling_update_of_both_hosts_loses_nothing(hosts: TwoHosts) -> None:
    """Each host is drained, stopped, started with new code and used again; all that was answered is counted, once."""
    workers = {host: hosts.fleets[host].workers() for host in HOSTS}
    report = rolling_update(hosts, "second")
    assert not report.failed, report
    assert report.idle_closes == 0, "the balancer keeps its clients' connections"
    for host in HOSTS:
        old, new = set(workers[host]), set(hosts.fleets[host].workers())
        answered = {int(pid) for pid in report.workers}
        assert old & answered, f"the old code on {host} answered nobody"
        assert new & answered, f"the new code on {host} answered nobody"
    assert int(hosts.ask("total")) == report.answered
    assert hosts.ask().startswith("second on ")


def test_a_balancer_that_is_not_told_loses_nothing_either(hosts: TwoHosts) -> None:
    """A restart without a word: what is refused goes to the other host, what is open is finished, readiness does the rest."""
    report = rolling_update(hosts, "second", is_told=False)
    assert not report.failed, report
    assert int(hosts.ask("total")) == report.answered
