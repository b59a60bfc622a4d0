"""The admin process beside a real fleet: what it tells is so, and whatever becomes of it, the fleet serves on."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import procfs
from tests.process.apps import UNCACHED, Held, Site, ask, reload, serving, wait_until_ready
from tests.process.attending import admin_pid, admin_pids, admin_port, look, metric, status
from tests.process.controlling import done
from tests.process.harness import WAIT_S, Fleet, free_port, wait_until
from tests.process.load import Load
from tests.process.test_command_options import needs_root
from tests.process.test_promises_idle import _assert_idle
from tests.process.test_promises_upgrade import end, upgrade

REQUESTS = 400
OK = 'prefork_requests_total{status="2xx"}'


def attended(start: Callable[..., Fleet], *words: str, workers: int = 2) -> Fleet:
    """A fleet that serves, and its admin process, which answers."""
    fleet = start(*serving("web", "--admin", "127.0.0.1:0", *words, workers=workers))
    wait_until_ready(fleet, workers)
    admin_answers(fleet)
    return fleet


def admin_answers(fleet: Fleet) -> None:
    """Its listener is there from the start; so whoever asks waits for it, and no longer."""
    assert look(fleet, "/healthz") == (200, "ok\n")


def send_requests(fleet: Fleet, count: int) -> None:
    """So many, ten to a connection."""
    for _ in range(count // 10):
        connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=WAIT_S)
        for _ in range(10):
            connection.request("GET", "/")
            assert connection.getresponse().read()
        connection.close()


# -- what it tells ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_everybody_counts_the_same(fleet_of: Callable[..., Fleet], sharing: tuple[str, ...]) -> None:
    """Who has sent them, the dashboard's data, Prometheus' page, `top` and `status`: to the last request."""
    fleet = attended(fleet_of, *sharing)
    send_requests(fleet, REQUESTS)
    wait_until(lambda: status(fleet)["requests"] >= REQUESTS, "all have been told", show=lambda: fleet.output)
    found = status(fleet)
    assert found["requests"] == found["statuses"]["2xx"] == REQUESTS
    assert sum(worker["requests"] for worker in found["workers"]) == REQUESTS
    assert metric(fleet, OK) == REQUESTS
    assert metric(fleet, "prefork_request_duration_seconds_count") == REQUESTS
    top = json.loads(done(fleet, "top", "--once", "--json", "--interval", "0.2"))
    assert top["requests"] == REQUESTS
    assert [w["requests"] for w in top["workers"]] == [w["requests"] for w in found["workers"]]
    report = json.loads(done(fleet, "status", "--json"))
    assert sum(sum(worker["statuses"]) for worker in report["workers"]) == REQUESTS


@pytest.mark.slow
def test_counters_never_go_back(fleet_of: Callable[..., Fleet], load_on: Callable[..., Load]) -> None:
    """Not while workers crash, are recycled, and are all replaced; what one had told that was drained is not lost."""
    fleet = attended(fleet_of)
    load = load_on(fleet.url, clients=8)
    seen = [0.0]

    def counted(least: float) -> bool:
        seen.append(status(fleet)["requests"])
        seen.append(metric(fleet, "prefork_request_duration_seconds_count"))
        assert seen[-2] >= seen[-4:-2][0], seen
        return seen[-2] >= least

    seen.append(0.0)
    wait_until(lambda: counted(100), "some are counted")
    reload(fleet)
    wait_until(lambda: counted(seen[-2] + 100), "more are counted")
    done(fleet, "recycle", "0")
    wait_until(lambda: counted(seen[-2] + 100), "more are counted")
    answered = load.finish()
    assert not answered.failed, answered
    wait_until(lambda: counted(answered.answered), "all are counted")
    assert status(fleet)["replaced"] == {"crash": 0, "hung": 0, "recycle": 1, "reload": 2, "left": 0}


def test_what_is_in_flight(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """One request, one connection, at the worker that holds it."""
    fleet = attended(fleet_of)
    held = Held(fleet, tmp_path)
    wait_until(lambda: status(fleet)["in_flight"] == 1, "it has been told")
    found = status(fleet)
    assert found["connections"] == 1
    assert {worker["pid"]: worker["in_flight"] for worker in found["workers"]}[held.pid] == 1
    assert held.answer()


def test_the_queue(fleet_of: Callable[..., Fleet]) -> None:
    """Connections that nobody accepts, because everybody is stopped."""
    fleet = attended(fleet_of)
    for pid in fleet.workers():
        fleet.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: procfs.state(pid) == "T", "the worker is stopped")
    waiting = [fleet.connect() for _ in range(3)]
    wait_until(lambda: status(fleet)["queue_depth"] == 3, "they wait", show=lambda: str(status(fleet)))
    assert metric(fleet, "prefork_queue_depth") == 3
    for pid in fleet.workers():
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: status(fleet)["queue_depth"] == 0, "they are accepted")
    for connection in waiting:
        connection.close()


def test_what_has_happened(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """A crash, and a reload that fails, with their times; restarts by cause."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving("--admin", "127.0.0.1:0"), env=UNCACHED)
    workers = wait_until_ready(fleet)
    mark = fleet.mark()
    fleet.kill(workers[1])
    fleet.wait_for_workers(1, since=mark)
    site.write("raise RuntimeError('broken')")
    fleet.signal(signal.SIGHUP)
    fleet.wait_for("reload failed")
    events = status(fleet)["events"]
    assert [event["kind"] for event in events] == ["start", "crash", "reload", "failed"]
    assert f"pid {workers[1]}" in events[1]["text"]
    ages = [event["ago_s"] for event in events]
    assert ages == sorted(ages, reverse=True)
    assert metric(fleet, 'prefork_worker_restarts_total{cause="crash"}') == 1


def test_readiness(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """200 while somebody accepts and nobody leaves; 503 from the moment of the stop, to its end."""
    fleet = attended(fleet_of)
    assert look(fleet, "/readyz") == (200, "serving, 2 of 2 workers\n")
    held = Held(fleet, tmp_path)
    fleet.signal(signal.SIGTERM)
    fleet.wait_for("stopping")
    assert look(fleet, "/readyz") == (503, "stopping, 0 of 2 workers\n")
    assert look(fleet, "/healthz")[0] == 200
    assert held.answer()
    assert fleet.wait() == 0
    fleet.assert_nothing_left()


def test_not_ready_before_it_is(fleet_of: Callable[..., Fleet], python_script: Callable[..., Path]) -> None:
    """It answers while the application is loaded: that nobody is ready."""
    gate = python_script("", "gate").with_name("pipe")
    os.mkfifo(gate)
    app = python_script(
        f"""
        open({str(gate)!r}, "rb").read(1)
        from tests.process.apps.web import app
        """,
        "slow_app.py",
    )
    fleet = fleet_of(*serving("slow_app", "--admin", "127.0.0.1:0", folder=app.parent))
    admin_answers(fleet)
    assert look(fleet, "/readyz") == (503, "starting, 0 of 2 workers\n")
    gate.write_bytes(b"now")
    wait_until_ready(fleet)
    assert look(fleet, "/readyz")[0] == 200


# -- who may ask --------------------------------------------------------------------------------------


def test_strangers_are_refused(fleet_of: Callable[..., Fleet]) -> None:
    """By name, by origin, by method; nothing of theirs reaches the fleet."""
    fleet = attended(fleet_of, "--admin-host", "admin.example")
    assert look(fleet, "/status.json", Host="evil.example")[0] == 403
    assert look(fleet, "/status.json", Host="admin.example")[0] == 200
    assert look(fleet, "/status.json", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403
    assert look(fleet, "/status.json", Origin="http://evil.example")[0] == 403
    assert look(fleet, "/status.json", "POST")[0] == 405
    assert look(fleet, "/", "DELETE")[0] == 405


def test_it_listens_on_loopback_if_a_port_is_all_that_is_said(fleet_of: Callable[..., Fleet]) -> None:
    """Nobody else is let in by a short command line."""
    port = free_port()
    fleet = fleet_of(*serving("web", "--admin", str(port)))
    wait_until_ready(fleet)
    assert admin_port(fleet) == port
    admin_answers(fleet)


def test_a_port_in_use_is_told_at_the_start(fleet_of: Callable[..., Fleet]) -> None:
    """In one line, with the status for wrong words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fleet = fleet_of(*serving("web", "--admin", f"127.0.0.1:{taken.getsockname()[1]}"))
        assert fleet.wait() == 2
    assert "in use" in fleet.lines[-1]
    assert not fleet.find_all("Traceback")


# -- what becomes of it -------------------------------------------------------------------------------


def test_one_that_is_killed_is_replaced(fleet_of: Callable[..., Fleet]) -> None:
    """On the same port, and the fleet has not lost anything: no crash of the workers' is counted."""
    fleet = attended(fleet_of, "--recover-threshold", "0")
    port, first = admin_port(fleet), admin_pid(fleet)
    workers = fleet.workers()
    fleet.kill(first)
    fleet.wait_for("admin: the process ended")
    wait_until(lambda: admin_pids(fleet) not in ([], [first]), "there is another")
    assert look(fleet, "/healthz")[0] == 200
    assert admin_port(fleet) == port
    assert fleet.workers() == workers
    assert ask(fleet)
    assert [event["kind"] for event in status(fleet)["events"]] == ["start", "admin"]
    assert status(fleet)["replaced"]["crash"] == 0
    assert fleet.stop() == 0


def test_one_that_hangs_delays_nobody(fleet_of: Callable[..., Fleet]) -> None:
    """Stopped in the middle of everything: the fleet serves, and stops within its bound."""
    fleet = attended(fleet_of)
    os.kill(admin_pid(fleet), signal.SIGSTOP)
    assert ask(fleet)
    reload(fleet)
    assert fleet.stop() == 0
    fleet.assert_nothing_left()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT], ids=lambda n: n.name
)
def test_a_signal_for_the_group_is_the_masters_business(
    fleet_of: Callable[..., Fleet], number: signal.Signals
) -> None:
    """It answers on; the master says when it is over."""
    fleet = attended(fleet_of)
    pid = admin_pid(fleet)
    os.kill(pid, number)
    assert look(fleet, "/readyz")[0] == 200
    assert admin_pid(fleet) == pid
    assert fleet.stop() == 0


def test_it_does_not_outlive_its_master(fleet_of: Callable[..., Fleet]) -> None:
    """However that ends."""
    fleet = attended(fleet_of)
    fleet.signal(signal.SIGKILL)
    fleet.assert_nothing_left()


@needs_root
def test_it_hears_of_its_masters_end_although_it_has_given_up_its_rights(
    fleet_of: Callable[..., Fleet],
) -> None:
    """The kernel's word is lost with them, and is asked for again; it may look at the workers, who are the same user."""
    with tempfile.TemporaryDirectory() as folder:  # that user cannot read pytest's
        Path(folder).chmod(0o755)
        site = Site(Path(folder))
        fleet = fleet_of(*site.serving("--user", "nobody", "--admin", "127.0.0.1:0"))
        wait_until_ready(fleet)
    admin_answers(fleet)
    assert Path(f"/proc/{admin_pid(fleet)}").stat().st_uid != 0
    assert status(fleet)["memory_pss_bytes"] > 1_000_000
    fleet.signal(signal.SIGKILL)
    fleet.assert_nothing_left()


@pytest.mark.slow
def test_in_an_upgrade_the_new_masters_takes_over(fleet_of: Callable[..., Fleet]) -> None:
    """At the same port; a master that fails changes nothing."""
    fleet = attended(fleet_of)
    port = admin_port(fleet)
    new = upgrade(fleet, fleet.pid)
    wait_until(lambda: status(fleet)["pid"] == new, "the new one answers", show=lambda: fleet.output)
    assert admin_port(fleet) == port
    assert look(fleet, "/readyz")[0] == 200
    assert len(admin_pids(fleet)) == 1
    end(fleet, new)


@pytest.mark.slow
def test_nobody_asks_and_nobody_wakes(fleet_of: Callable[..., Fleet]) -> None:
    """Master, zygote, parked process, two workers and the admin process, which has answered: no context switch."""
    fleet = attended(fleet_of)
    for _ in range(4):
        assert ask(fleet)
        status(fleet)
    _assert_idle(fleet, processes=6)
    assert fleet.stop() == 0


PROGRAM = """
    import sys
    from prefork import Prefork

    def serve(listener):
        while True:
            connection, _ = listener.accept()
            connection.close()

    Prefork(serve_func=serve, workers=2, start_method=sys.argv[1], admin="127.0.0.1:0").listen_and_serve("127.0.0.1:0")
"""


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_a_program_of_ones_own(
    python_script: Callable[..., Path], fleet_of_script: Callable[..., Fleet], method: str
) -> None:
    """Has one if it says so, without a control socket; a server that does not count has no counts."""
    fleet = fleet_of_script(python_script(PROGRAM), method)
    wait_until_ready(fleet)
    found = status(fleet)
    assert (found["state"], found["ready"], found["requests"]) == ("serving", 2, 0)
    assert sorted(worker["pid"] for worker in found["workers"]) == sorted(fleet.workers())
    assert [worker["connections"] for worker in found["workers"]] == [None, None]
    assert not fleet.find_all("control socket")
    assert procfs.state(admin_pid(fleet)) in {"S", "R"}
    assert fleet.stop() == 0


COUNTING = """
    from prefork.shared import Metrics

    orders = Metrics().counter("shop_orders_total", "Orders placed")

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        if scope["path"] == "/order":
            orders.add()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""


def test_the_applications_own_metrics(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Behind ours, whoever counted; and nothing is made for an application that has none."""
    pytest.importorskip("lmdb", reason="the shared store of one machine is lmdb's")
    site = Site(tmp_path)
    site.write(COUNTING)
    fleet = fleet_of(*site.serving("--admin", "127.0.0.1:0"))
    wait_until_ready(fleet)
    assert "shop_orders" not in look(fleet, "/metrics")[1]
    for _ in range(7):
        assert ask(fleet, "/order") == "ok"
    assert metric(fleet, "shop_orders_total") == 7
    assert fleet.stop() == 0
