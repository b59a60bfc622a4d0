"""preforkctl, each of its commands against a real fleet; and clients that would hold a master up."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from prefork import control
from prefork.cli.ctl import COMMANDS, preforkctl
from tests.process.apps import UNCACHED, Held, Request, Site, ask, pid_of, serving, wait_until_ready
from tests.process.controlling import CONTROL_SOCKET, Ctl, control_path, ctl, done, refused, status_of
from tests.process.harness import WAIT_S, Fleet, wait_until
from tests.process.load import Load
from tests.process.test_promises_idle import _assert_idle

SHARING = pytest.mark.parametrize("sharing", [(), ("--reuseport",)], ids=["shared", "reuseport"])
HANGS = "import time\nprint('hanging', flush=True)\ntime.sleep(1000)\n"


def fleet_at(start: Callable[..., Fleet], *words: str, app: str = "web", workers: int = 2) -> Fleet:
    """A fleet that serves."""
    fleet = start(*serving(app, *words, workers=workers))
    wait_until_ready(fleet, workers)
    return fleet


def silent_client(fleet: Fleet, said: bytes = b"") -> socket.socket:
    """Somebody who connects, perhaps says something, and then neither speaks nor listens."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(control_path(fleet))
    client.sendall(said)
    return client


# -- all of them --------------------------------------------------------------------------------------


def test_every_request_has_a_command_and_every_command_a_help() -> None:
    """And no command asks for anything else; `top` asks for the status, again and again."""
    assert set(COMMANDS) == set(typing.get_args(control.Request))
    commands = {name: command for name, command in preforkctl.commands.items() if name != "top"}
    assert set(commands.values()) == set(COMMANDS.values())
    assert set(commands) == {control.name_of(kind) for kind in COMMANDS}
    for command in preforkctl.commands.values():
        assert isinstance(command, click.Command)
        assert command.help


def test_every_command_is_tested_here() -> None:
    """By name, against a real fleet."""
    source = Path(__file__).read_text()
    for name in preforkctl.commands:
        assert re.search(rf'(done|refused|Ctl)\([^)]*"{name}"', source), name


# -- top ----------------------------------------------------------------------------------------------


def test_top(fleet_of: Callable[..., Fleet]) -> None:
    """A table for people, JSON for programs; standard output that is no terminal gets one table."""
    fleet = fleet_at(fleet_of)
    assert ask(fleet)
    table = done(fleet, "top", "--once", "--interval", "0.2")
    assert done(fleet, "top", "--interval", "0.2").split()[:6] == table.split()[:6]
    for pid in fleet.workers():
        assert re.search(rf"^ *\d +{pid} +1 +ready", table, re.MULTILINE), table
    assert "2 workers serve" in table
    report = json.loads(done(fleet, "top", "--once", "--json", "--interval", "0.2"))
    assert sorted(worker["pid"] for worker in report["workers"]) == sorted(fleet.workers())
    assert all(worker["memory_pss_bytes"] > 1_000_000 for worker in report["workers"])
    assert all(worker["cpu_share"] is not None for worker in report["workers"])


def test_top_at_a_terminal(fleet_of: Callable[..., Fleet]) -> None:
    """Goes on until Ctrl-C, shows who has come meanwhile, and ends with 0 and the terminal as it was."""
    fleet = fleet_at(fleet_of)
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "prefork.cli.ctl",
        "--control",
        control_path(fleet),
        "top",
        "--interval",
        "0.1",
    ]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as top:
        os.close(theirs)
        try:
            seen = read_until(ours, str(fleet.workers()[0]))
            mark = fleet.mark()
            fleet.kill(fleet.workers()[0])
            new = fleet.wait_for_workers(1, since=mark)[0]
            seen += read_until(ours, str(new))
            top.send_signal(signal.SIGINT)
            seen += read_until(ours, "\x1b[?1049l")  # back from the other screen
            assert top.wait(WAIT_S) == 0
        finally:
            top.kill()
            os.close(ours)
    assert "SLOT" in seen
    assert "Traceback" not in seen


def read_until(fd: int, text: str) -> str:
    """What a terminal is sent until `text` is in it; the suite's bound for a test is the bound."""
    seen = ""
    while text not in seen:
        seen += os.read(fd, 65536).decode(errors="replace")
    return seen


def test_top_without_a_master() -> None:
    """Is told in one line."""
    with Ctl("--control", "/no/such/socket", "top") as asked:
        assert asked.end() == 2
        assert "no master answers at /no/such/socket" in asked.errors


# -- status -------------------------------------------------------------------------------------------


def test_status(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """For people a table, for programs JSON; what it says is so."""
    fleet = fleet_at(fleet_of)
    held = Held(fleet, tmp_path)
    report = status_of(fleet)
    assert (report["pid"], report["state"], report["generation"]) == (fleet.pid, "serving", 1)
    assert (report["wanted"], report["ready"], report["name"]) == (2, 2, "web:app")
    assert report["addresses"] == [fleet.url]
    assert report["log_level"] == "info"
    workers = report["workers"]
    assert sorted(worker["pid"] for worker in workers) == sorted(fleet.workers())
    assert [worker["slot"] for worker in workers] == [0, 1]
    assert {worker["pid"]: worker["connections"] for worker in workers}[held.pid] == 1
    assert all(worker["pss_bytes"] > 1_000_000 for worker in workers)
    assert all(worker["age_s"] > 0 for worker in workers)
    table = done(fleet, "status").splitlines()
    assert table[0].startswith("web:app  serving, 2 of 2 workers  generation 1  http://127.0.0.1:")
    assert table[1].split() == ["SLOT", "PID", "GEN", "STATE", "AGE", "CONNECTIONS", "MEMORY"]
    assert [line.split()[1] for line in table[2:]] == [str(worker["pid"]) for worker in workers]
    assert held.answer()


# -- reload -------------------------------------------------------------------------------------------


def test_reload(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """It waits until only the new code answers, shows what happens, and says that it is done."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    site.write_good("second")
    with Ctl("--control", control_path(fleet), "reload") as asked:
        assert asked.end() == 0
        assert asked.output == "generation 2 serves\n"
        assert "reload: starting generation 2" in asked.errors
        assert "generation 2) ready" in asked.errors
    assert {ask(fleet).split()[0] for _ in range(8)} == {"second"}


BROKEN = {
    "raises": ("raise RuntimeError('broken on purpose')", "RuntimeError: broken on purpose"),
    "exits": ("import sys; sys.exit(0)", "SystemExit"),
    "does not parse": ("def app(:", "SyntaxError"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_reload_to_code_that_is_broken(fleet_of: Callable[..., Fleet], tmp_path: Path, how: str) -> None:
    """Status 1 and the reason; the old code answers."""
    source, why = BROKEN[how]
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    site.write(source)
    said = refused(fleet, "reload")
    assert said.startswith("preforkctl: reload failed: ")
    assert why in said
    assert said.endswith("generation 1 serves on")
    assert ask(fleet).startswith("first")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_in_the_middle_of_a_reload(
    fleet_of: Callable[..., Fleet], tmp_path: Path, number: signal.Signals
) -> None:
    """Promise 6: it is obeyed at once, and who waits for the reload is told."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    site.write(HANGS)
    with Ctl("--control", control_path(fleet), "reload") as asked:
        fleet.wait_for("hanging")
        assert fleet.stop(number) == 0
        assert asked.end() == 1
        assert "preforkctl: the fleet is stopping" in asked.errors
    fleet.assert_nothing_left()


def test_who_no_longer_waits_for_a_reload(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """--timeout ends the waiting, with status 1; the reload goes on."""
    site = Site(tmp_path)
    fleet = fleet_of(*site.serving("--boot-timeout", "6"), env=UNCACHED)
    wait_until_ready(fleet)
    site.write(HANGS)
    said = refused(fleet, "--timeout", "0.5", "reload")
    assert "no last word within 0.5 s; what was asked for goes on" in said
    fleet.wait_for("reload failed: the application was not loaded within 6 s")
    assert status_of(fleet)["state"] == "serving"


# -- scale --------------------------------------------------------------------------------------------


@SHARING
def test_scale(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], sharing: tuple[str, ...]
) -> None:
    """Up and down, waited for, under load: nobody notices."""
    fleet = fleet_at(fleet_of, *sharing)
    load = load_on(fleet.url, clients=8)
    assert done(fleet, "scale", "4") == "4 workers serve"
    assert len(status_of(fleet)["workers"]) == 4
    assert done(fleet, "scale", "1") == "1 worker serves"
    assert len(status_of(fleet)["workers"]) == 1
    report = load.finish()
    assert not report.failed, report
    assert "from 1 to 1024" in refused(fleet, "scale", "5000")


# -- recycle ------------------------------------------------------------------------------------------


@SHARING
def test_recycle(
    fleet_of: Callable[..., Fleet], load_on: Callable[..., Load], sharing: tuple[str, ...]
) -> None:
    """By slot and by pid, under load: the successor serves before the worker leaves, and no request fails."""
    fleet = fleet_at(fleet_of, *sharing)
    load = load_on(fleet.url, clients=16)
    for number in range(6):
        workers = {
            worker["slot"]: worker["pid"]
            for worker in status_of(fleet)["workers"]
            if worker["phase"] == "ready"
        }
        slot = number % 2
        name = str(slot) if number < 3 else f"pid:{workers[slot]}"
        mark = fleet.mark()
        assert re.fullmatch(
            rf"worker {slot} \(pid \d+, generation 1\) serves in its place", done(fleet, "recycle", name)
        )
        fleet.wait_for(rf"worker {slot} \(pid {workers[slot]}, generation 1\) stopped", since=mark)
        lines = "\n".join(fleet.lines[mark:])
        assert lines.index(") ready") < lines.index(") stopped")
    report = load.finish()
    assert not report.failed, report
    assert "there is no worker 9" in refused(fleet, "recycle", "9")


MOODY = """
    import os
    from pathlib import Path

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            if Path("MARKER").exists():
                raise RuntimeError("broken on purpose")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b"pid %d" % os.getpid()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
"""


def test_recycle_where_the_successor_does_not_start(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Status 1 and the reason; the worker serves on, it is no crash, and it is tried again by itself."""
    site = Site(tmp_path)
    marker = tmp_path / "broken"
    site.write(MOODY.replace("MARKER", str(marker)))
    fleet = fleet_of(*site.serving("--lifespan", "on", "--recover-threshold", "0"))
    old = wait_until_ready(fleet)
    worn = status_of(fleet)["workers"][0]["pid"]
    marker.touch()
    said = refused(fleet, "recycle", "0")
    assert "the application failed to start: RuntimeError: broken on purpose" in said
    assert f"worker 0 (pid {worn}, generation 1) serves on, next try in" in said
    assert fleet.workers() == old
    marker.unlink()
    fleet.wait_for(rf"worker 0 \(pid {worn}, generation 1\) stopped: exit status 0")
    assert fleet.is_running
    assert not fleet.find_all("crash")


# -- stacks -------------------------------------------------------------------------------------------


def test_stacks(fleet_of: Callable[..., Fleet]) -> None:
    """Of all threads and tasks, back and into the log; the worker goes on."""
    fleet = fleet_at(fleet_of, app="worn", workers=1)
    request = Request(fleet.connect(), "/wait").send()
    fleet.wait_for("waiting pid")
    said = done(fleet, "stacks", "0")
    assert "thread MainThread:" in said
    assert "in wait_for_ever" in said
    fleet.wait_for("stacks of worker 0")
    fleet.wait_for("in wait_for_ever")
    assert pid_of(ask(fleet)) == fleet.workers()[0]
    del request


def test_stacks_of_a_worker_whose_loop_is_blocked(fleet_of: Callable[..., Fleet]) -> None:
    """Where it is blocked is what one wants to see."""
    fleet = fleet_at(fleet_of, workers=1)
    request = Request(fleet.connect(), "/hang").send()
    fleet.wait_for("hanging pid")
    said = done(fleet, "stacks", "0")
    assert "time.sleep(1000)" in said
    assert fleet.workers()
    del request


def test_stacks_of_a_worker_whose_interpreter_is_stuck(fleet_of: Callable[..., Fleet]) -> None:
    """It cannot answer; the C library writes them to standard error, and the worker lives."""
    fleet = fleet_at(fleet_of, app="worn", workers=1)
    (worker,) = fleet.workers()
    request = Request(fleet.connect(), "/stuck").send()
    fleet.wait_for("stuck pid")
    said = refused(fleet, "stacks", str(worker))
    assert "its interpreter is stuck: its stacks are on its standard error" in said
    fleet.wait_for(r'worn\.py", line \d+ in app')
    assert fleet.workers() == [worker]
    del request


def test_stacks_asked_for_by_many_at_once(fleet_of: Callable[..., Fleet]) -> None:
    """Each is answered, as often as it has asked; a signal in the midst of the last answer loses nothing."""
    fleet = fleet_at(fleet_of, workers=1)
    asked = control.encode(control.Stacks("0")) * 20
    clients = [silent_client(fleet, asked) for _ in range(8)]
    for client in clients:
        client.settimeout(WAIT_S)
        with client, client.makefile("rb") as lines:
            for _ in range(20):
                answer = control.decode_answer(next(lines))
                assert isinstance(answer, control.StacksReport)
                assert answer.text.startswith("thread MainThread:")
                assert "in stacks" not in answer.text


# -- upgrade ------------------------------------------------------------------------------------------


def test_upgrade(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Waited for; the new master answers at the same place, and has the pidfile."""
    pidfile = tmp_path / "pid"
    fleet = fleet_at(fleet_of, "--pidfile", str(pidfile))
    path = control_path(fleet)
    assert done(fleet, "upgrade") == "the new master serves; the old one drains and leaves"
    report = status_of(fleet)
    assert report["pid"] != fleet.pid
    assert pidfile.read_text() == f"{report['pid']}\n"
    assert fleet.wait() == 0
    assert Path(path).exists()
    assert status_of(fleet)["pid"] == report["pid"]
    assert done(fleet, "stop") == "stopped"
    wait_until(lambda: not Path(path).exists(), "its path is gone")
    assert not pidfile.exists()
    fleet.assert_nothing_left()


def test_an_upgrade_that_fails(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Status 1 and the reason; the old master keeps its place, its pidfile, and serves."""
    site = Site(tmp_path)
    pidfile = tmp_path / "pid"
    fleet = fleet_of(*site.serving("--pidfile", str(pidfile)), env=UNCACHED)
    wait_until_ready(fleet)
    site.write("raise RuntimeError('broken on purpose')")
    said = refused(fleet, "upgrade")
    assert (
        "upgrade failed: the new master ended with status 3 before it was ready; the old master serves on"
        in said
    )
    assert status_of(fleet)["pid"] == fleet.pid
    assert pidfile.read_text() == f"{fleet.pid}\n"
    assert ask(fleet).startswith("first")


# -- stop ---------------------------------------------------------------------------------------------


def test_stop(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """What is open is finished; then it says so."""
    fleet = fleet_at(fleet_of)
    path = control_path(fleet)
    held = Held(fleet, tmp_path)
    with Ctl("--control", path, "stop") as asked:
        fleet.wait_for(r"stopping \(graceful\): preforkctl")
        assert held.answer()
        assert asked.end() == 0
        assert asked.output == "stopped\n"
    assert fleet.wait() == 0
    assert not Path(path).exists()
    fleet.assert_nothing_left()


def test_stop_fast(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """What is open is not waited for."""
    fleet = fleet_at(fleet_of)
    held = Held(fleet, tmp_path)
    assert done(fleet, "stop", "--fast") == "stopped"
    assert fleet.wait() == 0
    del held


# -- log-level ----------------------------------------------------------------------------------------


def test_log_level(fleet_of: Callable[..., Fleet]) -> None:
    """In the master, in the workers there are, and in those to come."""
    fleet = fleet_at(fleet_of, app="worn", workers=1)

    def speaks_up(since: int = 0) -> bool:
        """Whether the application's words are logged; asked again, because a worker hears a moment later than the master."""
        assert ask(fleet, "/debug")
        return bool(fleet.find_all("a word of the application's", since))

    ask(fleet, "/debug")
    assert done(fleet, "log-level", "debug") == "logging from debug on"
    assert status_of(fleet)["log_level"] == "debug"
    assert not fleet.find_all("a word of the application's")
    wait_until(speaks_up, "the worker has heard of it", show=lambda: fleet.output)
    done(fleet, "recycle", "0")
    mark = fleet.mark()
    wait_until(lambda: speaks_up(mark), "its successor too", show=lambda: fleet.output)
    mark = fleet.mark()
    done(fleet, "log-level", "error")
    done(fleet, "recycle", "0")
    assert not fleet.find_all("ready", since=mark)


# -- forgive ------------------------------------------------------------------------------------------


def test_forgive(fleet_of: Callable[..., Fleet]) -> None:
    """Where nothing is refused it says so; what it lifts is told in test_refusals.py."""
    fleet = fleet_at(fleet_of)
    assert done(fleet, "forgive") == "nothing was refused"


# -- which master -------------------------------------------------------------------------------------


def test_the_only_master_is_found(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """In the run-time directory; of several one has to be named, and they are shown."""
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    first = fleet_of(*serving("web", "--pidfile", str(tmp_path / "first")), env=env)
    wait_until_ready(first)
    with Ctl("status", env=env) as asked:
        assert asked.end() == 0, asked.errors
        assert f"master {first.pid}" in asked.output
    second = fleet_of(*serving("web", "--pidfile", str(tmp_path / "second")), env=env)
    wait_until_ready(second)
    with Ctl("status", env=env) as asked:
        assert asked.end() == 2
        assert "2 masters run: say which" in asked.errors
        for fleet in (first, second):
            assert f"--control {control_path(fleet)}  (master {fleet.pid})" in asked.errors
    with Ctl("status", env={**env, "PREFORK_CONTROL": control_path(first)}) as asked:
        assert asked.end() == 0, asked.errors
        assert f"master {first.pid}" in asked.output
    with Ctl("--pidfile", str(tmp_path / "second"), "status", env=env) as asked:
        assert asked.end() == 0, asked.errors
        assert f"master {second.pid}" in asked.output


def test_no_master_is_found(tmp_path: Path) -> None:
    """Status 2, and where was looked."""
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    with Ctl("--control", str(tmp_path / "nowhere"), "status") as asked:
        assert asked.end() == 2
        assert f"no master answers at {tmp_path / 'nowhere'}: No such file or directory" in asked.errors
    with Ctl("--pidfile", str(tmp_path / "pid"), "status", env=env) as asked:
        assert asked.end() == 2
        assert "pidfile" in asked.errors
    for words in (("relaod",), ("scale",), ("scale", "many"), ("log-level", "loud"), ()):
        with Ctl(*words) as asked:
            assert asked.end() == 2
            assert "Traceback" not in asked.errors


def test_a_path_of_ones_own(fleet_of: Callable[..., Fleet], tmp_path: Path) -> None:
    """Open to its owner only; taken again after a master that was killed, and refused where one answers."""
    path = tmp_path / "ctl.sock"
    words = serving("web", "--control", str(path))
    fleet = fleet_of(*words)
    wait_until_ready(fleet)
    assert control_path(fleet) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = fleet_of(*words)
    assert other.wait() == 2
    assert f"unix:{path} is in use by a running program" in other.output
    fleet.signal(signal.SIGKILL)
    fleet.wait()
    assert path.exists()
    again = fleet_of(*words)
    wait_until_ready(again)
    assert status_of(again)["pid"] == again.pid
    assert again.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("words", [("--no-control",), ("--control", "")])
def test_without_a_control_socket(fleet_of: Callable[..., Fleet], words: tuple[str, ...]) -> None:
    """Nothing is opened, and nothing said of it."""
    fleet = fleet_at(fleet_of, *words)
    assert not fleet.find_all(CONTROL_SOCKET)
    assert fleet.stop() == 0


def test_where_there_is_no_place_for_it_the_fleet_serves_all_the_same(
    fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    """A path so long that no socket can have it: a warning."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir(mode=0o700)
    fleet = fleet_of(*serving("web"), env={"XDG_RUNTIME_DIR": str(folder)})
    wait_until_ready(fleet)
    fleet.wait_for("no control socket, preforkctl cannot be answered", since=0)
    assert fleet.stop() == 0


PROGRAM = """
    import sys
    from prefork import Prefork

    def serve(listener):
        while True:
            listener.accept()[0].close()

    Prefork(serve_func=serve, workers=1, control=sys.argv[1] or None).listen_and_serve("127.0.0.1:0")
    """


@pytest.mark.parametrize("control_", ["", "auto"])
def test_a_program_has_one_only_if_it_asks(
    python_script: Callable[..., Path], fleet_of_script: Callable[..., Fleet], control_: str
) -> None:
    """A library makes no files unasked."""
    fleet = fleet_of_script(python_script(PROGRAM), control_)
    wait_until_ready(fleet, 1)
    assert bool(fleet.find_all(CONTROL_SOCKET)) == bool(control_)
    if control_:
        assert status_of(fleet)["workers"][0]["pid"] == fleet.workers()[0]
        assert "thread MainThread" in done(fleet, "stacks", "0")
        assert done(fleet, "stop") == "stopped"
        assert fleet.wait() == 0


# -- clients that hold nobody up ----------------------------------------------------------------------


def test_clients_that_say_nothing_and_read_nothing(fleet_of: Callable[..., Fleet]) -> None:
    """More of them than there are places: everybody else is answered, a crash is recovered from, TERM is obeyed."""
    fleet = fleet_at(fleet_of)
    silent = [silent_client(fleet) for _ in range(12)]
    deaf = [silent_client(fleet, control.encode(control.Status()) * 50) for _ in range(12)]
    assert status_of(fleet)["state"] == "serving"
    mark = fleet.mark()
    fleet.kill(fleet.workers()[0])
    fleet.wait_for_workers(1, since=mark)
    assert done(fleet, "reload") == "generation 2 serves"
    assert fleet.stop() == 0
    for client in (*silent, *deaf):
        client.close()


@pytest.mark.slow
def test_a_fleet_that_is_being_watched_is_idle(fleet_of: Callable[..., Fleet]) -> None:
    """Promise 5, with a client that says nothing, one that has gone, and after all has been tried."""
    fleet = fleet_at(fleet_of)
    silent = silent_client(fleet)
    silent_client(fleet).close()
    status_of(fleet)
    done(fleet, "stacks", "0")
    done(fleet, "log-level", "debug")
    done(fleet, "recycle", "0")
    wait_until(lambda: len(fleet.workers()) == 2, "the old worker has left")
    _assert_idle(fleet, processes=5)
    silent.close()
    assert ctl(fleet, "status").end() == 0
