"""State that all workers see, under a real master: who makes it, who keeps it, who takes it away."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork.shared.place import VARIABLE
from tests.process.apps import UNCACHED, Site, ask, pid_of, reload, wait_until_ready
from tests.process.harness import WAIT_S, Fleet, wait_until
from tests.process.test_promises_idle import _assert_idle
from tests.process.test_promises_upgrade import end, upgrade

COUNTING = """
    import os
    from prefork.shared import Cache, Counter, Topic

    cache = Cache("pages")
    visits = Counter("visits")
    cache.add("loaded", os.getpid())
    news = Topic("news")
    listener = None

    async def app(scope, receive, send):
        global listener
        if scope["type"] == "lifespan":
            listener = news.listen()
            while True:
                event = (await receive())["type"]
                await send({"type": event + ".complete"})
                if event == "lifespan.shutdown":
                    return
        visits.add()
        number = cache.increment("number")
        text = f"pid {os.getpid()} number {number} visits {visits.get()} at {os.environ['PREFORK_SHARED']}"
        body = text.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    """


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An application that counts, and says where."""
    made = Site(tmp_path)
    made.write(COUNTING)
    return made


def asked(fleet: Fleet) -> tuple[int, int, int, Path]:
    """What one answer says: pid, number, visits, the directory."""
    body = ask(fleet)
    found = re.fullmatch(r"pid (\d+) number (\d+) visits (\d+) at lmdb://([^?]+)\S*", body)
    assert found, body
    return int(found[1]), int(found[2]), int(found[3]), Path(found[4])


def ask_both(fleet: Fleet) -> tuple[list[int], Path]:
    """Ask until two workers have answered: all numbers, and where they are."""
    pids, numbers = set(), []
    folder = Path()
    while len(pids) < 2:
        pid, number, visits, folder = asked(fleet)
        assert number == visits
        pids.add(pid)
        numbers.append(number)
        assert len(numbers) < 500, "one worker answers all"
    return numbers, folder


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_all_workers_see_the_same(fleet_of: Callable[..., Fleet], site: Site, method: str) -> None:
    """Whichever answers counts on; the directory is there while the fleet is, and gone with it."""
    fleet = fleet_of(*site.serving("--start-method", method), env=UNCACHED)
    wait_until_ready(fleet)
    numbers, folder = ask_both(fleet)
    assert numbers == list(range(1, len(numbers) + 1))
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0
    assert fleet.stop() == 0
    assert not folder.exists()


def test_a_worker_that_is_killed_takes_nothing_with_it(fleet_of: Callable[..., Fleet], site: Site) -> None:
    """Its replacement goes on counting from where it was."""
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    workers = wait_until_ready(fleet)
    numbers, _ = ask_both(fleet)
    mark = fleet.mark()
    fleet.kill(workers[0])
    fleet.wait_for_workers(1, since=mark)
    later, _ = ask_both(fleet)
    assert later[0] == numbers[-1] + 1
    assert fleet.stop() == 0


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_state_is_kept_in_a_reload(fleet_of: Callable[..., Fleet], site: Site, method: str) -> None:
    """New code, old state."""
    fleet = fleet_of(*site.serving("--start-method", method), env=UNCACHED)
    wait_until_ready(fleet)
    numbers, folder = ask_both(fleet)
    reload(fleet)
    later, same = ask_both(fleet)
    assert later[0] == numbers[-1] + 1
    assert same == folder
    assert fleet.stop() == 0
    assert not folder.exists()


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_state_begins_anew_in_a_reload_by_option(
    fleet_of: Callable[..., Fleet], site: Site, method: str
) -> None:
    """`keep=0`: each generation has its own, and those before the last are removed."""
    fleet = fleet_of(
        *site.serving("--start-method", method, "--shared", "lmdb://?keep=0&size_mb=4"), env=UNCACHED
    )
    wait_until_ready(fleet)
    folders = []
    for number in range(3):
        if number:
            reload(fleet)
        numbers, folder = ask_both(fleet)
        assert numbers[0] == 1
        folders.append(folder)
    assert len(set(folders)) == 3
    assert not folders[0].exists()
    assert fleet.stop() == 0
    assert not folders[0].parent.exists()


def test_state_is_kept_in_an_upgrade(fleet_of: Callable[..., Fleet], site: Site) -> None:
    """The old master leaves the directory to the new one, twice; the last one removes it."""
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    numbers, folder = ask_both(fleet)
    master = upgrade(fleet, fleet.pid)
    later, same = ask_both(fleet)
    assert later[0] == numbers[-1] + 1
    assert same == folder
    master = upgrade(fleet, master)
    last, same = ask_both(fleet)
    assert last[0] == later[-1] + 1
    assert same == folder
    end(fleet, master)
    wait_until(lambda: not folder.exists(), "the last master has removed it")


def test_an_upgrade_that_fails_takes_nothing_away(fleet_of: Callable[..., Fleet], site: Site) -> None:
    """The new master used the directory, and left."""
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    numbers, folder = ask_both(fleet)
    site.write("raise RuntimeError('broken on purpose')")
    fleet.signal(signal.SIGUSR2)
    fleet.wait_for("upgrade failed: ")
    later, same = ask_both(fleet)
    assert later[0] == numbers[-1] + 1
    assert same == folder
    assert fleet.stop() == 0
    assert not folder.exists()


def test_state_begins_anew_in_an_upgrade_by_option(fleet_of: Callable[..., Fleet], site: Site) -> None:
    """`keep=0` holds there, too."""
    fleet = fleet_of(*site.serving("--shared", "lmdb://?keep=0&size_mb=4"), env=UNCACHED)
    wait_until_ready(fleet)
    _, folder = ask_both(fleet)
    master = upgrade(fleet, fleet.pid)
    numbers, other = ask_both(fleet)
    assert numbers[0] == 1
    assert other.parent != folder.parent
    end(fleet, master)


def test_what_a_killed_master_left_is_removed_by_the_next_start(
    fleet_of: Callable[..., Fleet], site: Site
) -> None:
    """But not what somebody uses: another fleet's state stays."""
    other = fleet_of(*site.serving("--shared", "lmdb://?size_mb=4"), env=UNCACHED)
    wait_until_ready(other)
    _, in_use = ask_both(other)
    first = fleet_of(*site.serving("--shared", "lmdb://?size_mb=4"), env=UNCACHED)
    wait_until_ready(first)
    _, left = ask_both(first)
    first.signal(signal.SIGKILL)
    first.assert_nothing_left(WAIT_S)
    assert left.is_dir()
    second = fleet_of(*site.serving("--shared", "lmdb://?size_mb=4"), env=UNCACHED)
    wait_until_ready(second)
    assert not left.exists()
    assert in_use.is_dir()
    assert asked(other)[3] == in_use
    assert second.stop() == 0
    assert other.stop() == 0


def test_a_directory_of_the_users_own_survives_a_restart(
    fleet_of: Callable[..., Fleet], site: Site, tmp_path: Path
) -> None:
    """`lmdb:///path`: made if need be, never removed."""
    folder = tmp_path / "state"
    last = 0
    for _ in range(2):
        fleet = fleet_of(*site.serving("--shared", f"lmdb://{folder}?size_mb=4"), env=UNCACHED)
        wait_until_ready(fleet)
        numbers, where = ask_both(fleet)
        assert where == folder
        assert numbers[0] == last + 1
        last = numbers[-1]
        assert (folder / "boot").exists()
        assert fleet.stop() == 0
        assert (folder / "data.mdb").exists()
        assert not (folder / "boot").exists(), "it was written to the disk"


def test_the_environment_chooses_where_the_option_does_not(
    fleet_of: Callable[..., Fleet], site: Site, tmp_path: Path
) -> None:
    """`PREFORK_SHARED`, as a container is configured."""
    env = {**UNCACHED, VARIABLE: f"lmdb://{tmp_path}/state?size_mb=4"}
    fleet = fleet_of(*site.serving(), env=env)
    wait_until_ready(fleet)
    assert asked(fleet)[3] == tmp_path / "state"
    assert fleet.stop() == 0


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "begin with one of"),
        ("lmdb://?size_mb=0", "size_mb"),
        ("lmdb://?colour=red", "no option 'colour'"),
    ],
)
def test_a_url_that_cannot_be_is_told_at_the_start(
    fleet_of: Callable[..., Fleet], url: str, why: str
) -> None:
    """One line and status 2."""
    fleet = fleet_of("web:app", "--shared", url)
    assert fleet.wait() == 2
    assert why in fleet.output
    assert "Traceback" not in fleet.output


def test_what_a_program_stored_before_it_served_its_workers_see(
    python_script: Callable[..., Path], fleet_of_script: Callable[..., Fleet]
) -> None:
    """A library's program may fill the cache first: it is the same one in workers of the first and later generations."""
    script = python_script(
        """
        from prefork import Prefork, Server
        from prefork.shared import Cache

        cache = Cache("pages")
        cache.set("told", "before")

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            body = f"{cache.get('told')} {cache.increment('n')}".encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
            await send({"type": "http.response.body", "body": body})

        if __name__ == "__main__":
            Prefork(Server(app, interface="asgi"), workers=2).listen_and_serve("127.0.0.1:0")
            print("afterwards:", cache.get("told"), cache.get("n"), flush=True)
        """
    )
    fleet = fleet_of_script(script)
    wait_until_ready(fleet)
    assert [ask(fleet) for _ in range(3)] == ["before 1", "before 2", "before 3"]
    reload(fleet)
    assert ask(fleet) == "before 4"
    fleet.signal(signal.SIGTERM)
    fleet.wait_for("afterwards: before 4")
    assert fleet.wait() == 0


def test_the_master_carries_no_database(fleet_of: Callable[..., Fleet], site: Site) -> None:
    """It has neither lmdb nor a thread, and its workers have both database and listener."""
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    workers = wait_until_ready(fleet)
    ask_both(fleet)
    assert "lmdb" not in Path(f"/proc/{fleet.pid}/maps").read_text()
    assert len(os.listdir(f"/proc/{fleet.pid}/task")) == 1
    for pid in workers:
        assert "data.mdb" in Path(f"/proc/{pid}/maps").read_text()
    assert fleet.stop() == 0


@pytest.mark.slow
def test_idle_is_idle_with_state_and_listeners(fleet_of: Callable[..., Fleet], site: Site) -> None:
    """Promise 5: a cache in use and a topic that is listened to wake nobody."""
    fleet = fleet_of(*site.serving(), env=UNCACHED)
    wait_until_ready(fleet)
    ask_both(fleet)
    _assert_idle(fleet, processes=5)
    assert pid_of(ask(fleet))
    assert fleet.stop() == 0
