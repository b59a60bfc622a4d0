from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork.errors import ConfigError, StoreUnavailableError
from prefork.shared import place, tenancy
from prefork.shared.place import MasterPlace, Options, Place, generation_url, parse, url_of


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("lmdb://", Place("lmdb", url="lmdb://")),
        ("lmdb:///var/lib/shop/", Place("lmdb", "/var/lib/shop", url="lmdb:///var/lib/shop/")),
        ("lmdb:///a%20b?sync=1", Place("lmdb", "/a b", Options(sync=True), "lmdb:///a%20b?sync=1")),
        (
            "lmdb://?size_mb=8.5&keep=no",
            Place("lmdb", "", Options(8.5, keep=False), "lmdb://?size_mb=8.5&keep=no"),
        ),
        ("memory://?name=a", Place("memory", "", Options(name="a"), "memory://?name=a")),
        ("redis://localhost:6379/0", Place("redis", url="redis://localhost:6379/0")),
        ("valkey://localhost", Place("redis", url="valkey://localhost")),
        ("unix:///run/redis.sock?db=1", Place("unix", url="unix:///run/redis.sock?db=1")),
    ],
)
def test_a_url_says_where(url: str, expected: Place) -> None:
    """Scheme, directory, options."""
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "begin with one of"),
        ("lmdb", "begin with one of"),
        ("lmdb:/a", "begin with one of"),
        ("http://x", "begin with one of"),
        ("lmdb://relative/path", "absolute"),
        ("memory:///path", "memory://"),
        ("lmdb://?colour=red", "no option 'colour', only size_mb"),
        ("lmdb://?size_mb=3", "from 4"),
        ("lmdb://?size_mb=much", "'much'"),
        ("lmdb://?size_mb=nan", "'nan'"),
        ("lmdb://?keep=perhaps", "1 or 0"),
        ("lmdb://?damaged=maybe", "error, clear"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, why: str) -> None:
    """One line that says what to write."""
    with pytest.raises(ConfigError, match=why):
        parse(url)


def test_a_place_goes_through_the_environment_and_back() -> None:
    """All that was said arrives in the workers."""
    options = Options(8.5, keep=False, damaged="clear", sync=True, is_anonymous=True)
    made = Place("lmdb", "/a b/ü", options)
    again = parse(url_of(made))
    assert (again.path, again.options) == (made.path, made.options)


def test_generations_share_a_directory_unless_told_otherwise() -> None:
    """With `keep=0` each has its own below the first."""
    assert generation_url("lmdb:///a?size_mb=4", 3) == "lmdb:///a?size_mb=4"
    first = generation_url("lmdb:///a?size_mb=4&keep=0", 1)
    assert parse(first).path == "/a/generation-1"
    assert parse(generation_url(first, 2)).path == "/a/generation-2"
    assert generation_url("redis://x", 2) == "redis://x"


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base for directories that is this test's alone."""
    monkeypatch.setattr(tenancy, "_base", lambda _size_mb: str(tmp_path))
    monkeypatch.setattr(tenancy, "_bases", lambda: [str(tmp_path)])
    monkeypatch.setattr(place, "_OWN", place._Own())
    return tmp_path


def test_the_last_one_who_leaves_removes_the_directory(memory: Path) -> None:
    """Whoever made it; and nobody moves in afterwards."""
    maker = tenancy.build(1)
    assert Path(maker.path).parent == memory
    guest = tenancy.move_in(maker.path)
    assert not maker.leave()
    assert Path(guest.path).is_dir()
    assert not maker.leave()  # has left already
    assert guest.leave()
    assert list(memory.iterdir()) == []
    with pytest.raises(StoreUnavailableError, match="removed"):
        tenancy.move_in(guest.path)


def test_a_process_without_a_master_leaves_nothing(
    python_script: Callable[..., Path], tmp_path: Path
) -> None:
    """Its own store goes with it, though it has forked in between."""
    script = python_script(
        """
        import os
        from prefork.shared import Cache

        cache = Cache("x")
        cache.set("key", 1)
        if os.fork() == 0:
            cache.set("key", 2)
            os._exit(0)
        os.wait()
        print(cache.get("key"), cache.store.place.path)
        """
    )
    words = [sys.executable, str(script)]
    ended = subprocess.run(words, check=True, capture_output=True, text=True, timeout=90)
    value, path = ended.stdout.split()
    assert value == "2"
    assert not Path(path).exists()


def test_a_directory_of_the_users_own_is_kept(memory: Path) -> None:
    """Whoever leaves last."""
    assert not tenancy.move_in(str(memory)).leave(is_kept=True)
    assert memory.is_dir()


def test_asking_whether_it_is_alone_costs_a_guest_nothing(memory: Path) -> None:
    """Also where the answer is no, it goes on using the directory: Linux takes the lock away, and it is taken again."""
    maker = tenancy.build(1)
    guest = tenancy.move_in(maker.path)
    assert not guest.is_alone()
    assert not maker.leave()
    assert Path(guest.path).is_dir()
    assert guest.is_alone()
    assert guest.leave()


def test_leftovers_are_what_nobody_uses(memory: Path) -> None:
    """Directories of this user's that bear our name, and nothing else."""
    used = tenancy.build(1)
    left = tenancy.build(1)
    os.close(left._fd)  # as the kernel does when its process is killed
    (memory / "somebody-elses").mkdir()
    (memory / f"prefork-shared-{os.getuid() + 1}-x").mkdir()
    (memory / "somebody-elses" / "in-use").touch()
    (memory / f"prefork-shared-{os.getuid()}-link").symlink_to(memory / "somebody-elses")
    assert tenancy.remove_leftovers() == [left.path]
    assert Path(used.path).is_dir()
    assert len(list(memory.iterdir())) == 4
    assert (memory / "somebody-elses" / "in-use").exists()
    used.leave()


def test_a_directory_that_is_taken_for_a_leftover_is_made_again(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another start looks between its making and its lock: nobody hears of it, unless it never ends."""
    take, taken = fcntl.flock, list[str]()

    def disturbed(fd: int, how: int) -> None:
        if how == fcntl.LOCK_SH and len(taken) < disturbances:
            taken.append("")
            monkeypatch.setattr(fcntl, "flock", take)
            assert tenancy.remove_leftovers()
            monkeypatch.setattr(fcntl, "flock", disturbed)
        take(fd, how)

    disturbances = 2
    monkeypatch.setattr(fcntl, "flock", disturbed)
    built = tenancy.build(4)
    assert len(taken) == 2
    assert Path(built.path).is_dir()
    assert built.leave()
    disturbances = 100
    with pytest.raises(StoreUnavailableError, match="removed just now"):
        tenancy.build(4)


def test_a_master_puts_its_place_into_the_environment_and_takes_it_back(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second fleet of the same program begins anew."""
    taken = MasterPlace.take(None, is_upgrade=False)
    assert os.environ[place.VARIABLE] == taken.url
    assert Path(parse(taken.url).path).is_dir()
    taken.close()
    assert place.VARIABLE not in os.environ
    assert list(memory.iterdir()) == []


def test_a_master_above_is_not_asked(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that a worker of another fleet starts has a state of its own; only an upgrade takes the old one over."""
    above = MasterPlace.take(None, is_upgrade=False)
    inside = MasterPlace.take(None, is_upgrade=False)
    assert parse(inside.url).path != parse(above.url).path
    inside.close()
    monkeypatch.setenv(place.VARIABLE, above.url)
    after = MasterPlace.take(None, is_upgrade=True)
    assert parse(after.url).path == parse(above.url).path
    above.close()
    assert Path(parse(after.url).path).is_dir()
    monkeypatch.setenv(place.VARIABLE, after.url)
    after.close()
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("asked", ["lmdb://?size_mb=5", "lmdb://?keep=0"])
def test_an_upgrade_that_wants_another_size_or_nothing_kept_begins_anew(
    memory: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """The old directory stays the old master's."""
    above = MasterPlace.take(None, is_upgrade=False)
    after = MasterPlace.take(asked, is_upgrade=True)
    assert parse(after.url).path != parse(above.url).path
    after.close()
    above.close()
    assert list(memory.iterdir()) == []


def test_an_empty_variable_says_nothing(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unset one: so it can be switched off where it is inherited."""
    monkeypatch.setenv(place.VARIABLE, "")
    taken = MasterPlace.take(None, is_upgrade=False)
    assert taken.url.startswith("lmdb:///")
    taken.close()


def test_without_lmdb_one_line_says_what_to_install() -> None:
    """The extra is missing: a clear error at the first use, not at import."""
    code = (
        "import sys; sys.modules['lmdb'] = None\nfrom prefork.shared import Cache\nfrom prefork import ConfigError\n"
        "try: Cache('x').get('y')\nexcept ConfigError as error: print(error)"
    )
    words = [sys.executable, "-c", code]
    ended = subprocess.run(words, check=True, capture_output=True, text=True, timeout=90)
    assert "pip install prefork[shared]" in ended.stdout


def test_what_the_user_said_is_left_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis for all: the master changes nothing."""
    monkeypatch.setenv(place.VARIABLE, "redis://cache:6379/0")
    taken = MasterPlace.take(None, is_upgrade=False)
    assert taken.url == "redis://cache:6379/0"
    taken.close()
    assert os.environ[place.VARIABLE] == "redis://cache:6379/0"


def test_memory_without_room_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's /dev/shm of 64 MB, say: then it is the directory for temporary files."""
    import tempfile  # noqa: PLC0415  (the one that is asked)

    assert tenancy._base(2.0**40) == tempfile.gettempdir()
