"""What is special to LMDB and its files: bounds, faults, forks, and what a reader does not do."""

from __future__ import annotations

import gc
import os
import random
import resource
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork.errors import (
    SharedError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    ValueTooLargeError,
)
from prefork.shared import Cache, Counter, Lock, Topic, power
from prefork.shared.local import topics
from prefork.shared.local.cells import COLUMNS
from prefork.shared.local.store import LmdbStore
from prefork.shared.place import parse
from tests.shared.worlds import Clock, Crowd
from tests.shared.zipf import hits_of_lru, requests

MEGA = 2**20


@pytest.fixture
def made(directory: Path) -> Iterator[Callable[..., LmdbStore]]:
    """`made("size_mb=4")`: a store in this test's directory; made again, it is opened again."""
    stores: list[LmdbStore] = []

    def make(query: str = "size_mb=4") -> LmdbStore:
        for store in stores:
            store.close()
        stores.append(LmdbStore(parse(f"lmdb://{directory}/store?{query}")))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def bytes_below(directory: Path) -> int:
    """What the files take up, as du(1) counts."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


# -- bounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_mb", [4, 8, 16])
@pytest.mark.parametrize("value_bytes", [10, 100, 1_000, 3_000, 50_000])
def test_memory_is_never_above_the_bound(
    made: Callable[..., LmdbStore], directory: Path, size_mb: int, value_bytes: int
) -> None:
    """Three times as much as fits is stored; every `set` succeeds, and the files stay as large as they were."""
    store = made(f"size_mb={size_mb}")
    space = store.space(b"x")
    if value_bytes > store.files.map_bytes // 8:
        pytest.skip("larger than what such a store takes")
    space.set(b"first", b"b", None)
    before = bytes_below(directory)
    count = min(3 * size_mb * MEGA // value_bytes, 60_000)
    for number in range(count):
        assert space.set(b"%d" % number, b"b" + b"x" * value_bytes, None)
    assert bytes_below(directory) == before <= size_mb * MEGA
    stats = space.stats()
    assert stats.bytes <= size_mb * MEGA
    assert space.get(b"%d" % (count - 1)) is not None
    if count == 3 * size_mb * MEGA // value_bytes:
        assert stats.evictions > 0
        kept = len(list(space.keys()))
        assert kept * (value_bytes + 200) > 0.3 * size_mb * MEGA


def test_values_that_grow_and_shrink_fit(made: Callable[..., LmdbStore], directory: Path) -> None:
    """Sizes all mixed, written over: no write fails, whatever holes there are."""
    space = made("size_mb=4").space(b"x")
    chance = random.Random(7)
    for _ in range(6_000):
        size = chance.choice([0, 10, 500, 2_000, 5_000, 40_000, 200_000])
        assert space.set(b"%d" % chance.randrange(400), b"b" + b"x" * size, None)
    assert bytes_below(directory) <= 4 * MEGA


@pytest.mark.parametrize("skew", [0.8, 1.0, 1.2])
def test_hits_are_within_three_points_of_exact_lru(made: Callable[..., LmdbStore], skew: float) -> None:
    """As many entries, the same requests: what CLOCK loses against exact recency is little, or nothing."""
    space = made("size_mb=4").space(b"x")
    sequence = requests(30_000, skew, 60_000, seed=11)
    hits, counts = 0, []
    for number, key in enumerate(sequence):
        name = b"%d" % (key * 7919 % 30_011)
        if space.get(name) is not None:
            hits += 1
        else:
            space.set(name, b"b" + b"x" * 100, None)
        if number > 20_000 and number % 5_000 == 0:
            counts.append(len(list(space.keys())))
    exact = hits_of_lru(sequence, sum(counts) // len(counts))
    assert (hits - exact) / len(sequence) > -0.03


def test_what_is_read_stays_and_what_is_not_goes(made: Callable[..., LmdbStore]) -> None:
    """Entries that are asked for now and then outlive ten times the store's size of others."""
    space = made("size_mb=4").space(b"x")
    for number in range(50):
        space.set(b"wanted %d" % number, b"b" + b"x" * 100, None)
    for number in range(100_000):
        space.set(b"once %d" % number, b"b" + b"x" * 100, None)
        if number % 20 == 0:
            assert space.get(b"wanted %d" % (number // 20 % 50)) is not None


def test_the_expired_goes_first(made: Callable[..., LmdbStore]) -> None:
    """Its place is taken again without a sweeper, and what lives is not pushed out for it."""
    store = made("size_mb=4")
    clock = Clock()
    store.clock = clock
    space = store.space(b"x")
    count = 0
    while not space.stats().evictions:
        space.set(b"short %d" % count, b"b" + b"x" * 100, 1.0)
        space.get(b"short %d" % count)  # marked, and goes all the same
        count += 1
    clock.now_s += 2.0
    for number in range(count):
        space.set(b"long %d" % number, b"b" + b"x" * 100, None)
    living = sum(space.get(b"long %d" % number) is not None for number in range(count))
    assert living >= 0.8 * count


def test_a_value_larger_than_the_store_takes_is_refused(made: Callable[..., LmdbStore]) -> None:
    """Before anything is pushed out for it."""
    space = made("size_mb=4").space(b"x")
    space.set(b"key", b"bvalue", None)
    with pytest.raises(ValueTooLargeError, match="size_mb"):
        space.set(b"large", b"b" * MEGA, None)
    assert space.get(b"key") == b"bvalue"


def test_reading_writes_nothing(made: Callable[..., LmdbStore]) -> None:
    """Hits, misses, expired entries: LMDB's last transaction stays the same."""
    store = made()
    clock = Clock()
    store.clock = clock
    space = store.space(b"x")
    space.set(b"key", b"b1", None)
    space.set(b"short", b"b1", 1.0)
    space.get(b"nothing")
    before = store.files.env.info()["last_txnid"]
    clock.now_s += 2
    for key in (b"key", b"short", b"nothing"):
        space.get(key)
    space.get_many([b"key", b"short"])
    assert list(space.keys()) == [b"key"]
    assert store.files.env.info()["last_txnid"] == before


def test_names_of_numbers_are_bounded(made: Callable[..., LmdbStore]) -> None:
    """Past the last column a clear error; those that are there count on."""
    store = made()
    many = [(b"x%d" % number, 1) for number in range(COLUMNS + 1)]
    with pytest.raises(StoreFullError, match="fewer names"):
        store.add_many(many)
    store.add(b"x0", 1)
    assert store.number(b"x0") == 2


# -- faults -----------------------------------------------------------------------------------------------


def damaged_in_another_process(folder: Path, damage: Callable[[Path], None]) -> str:
    """Fill a store, damage it, use it again, each in a process of its own; what the last one met."""
    url = f"lmdb://{folder}/store?size_mb=4"
    fill = f"from prefork.shared import Cache\nc = Cache('x', url={url!r})\nfor n in range(5000): c.set(str(n), b'x' * 100)"
    use = (
        "from prefork.shared import Cache\nfrom prefork.errors import SharedError\n"
        f"c = Cache('x', url={url!r})\n"
        "try:\n    [c.get(str(n)) for n in range(5000)]; c.set('new', 1); print('fine')\n"
        "except SharedError as error: print(type(error).__name__, error)"
    )
    for code, after in ((fill, damage), (use, None)):
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False
        )
        if after is not None:
            assert ended.returncode == 0, ended.stderr
            after(folder / "store")
    return ended.stdout + ended.stderr if ended.returncode == 0 else f"status {ended.returncode}"


def overwrite(name: str, begin: int, data: bytes) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        with (store / name).open("r+b") as file:
            file.seek(begin)
            file.write(data)

    return damage


DAMAGE = {
    "no database at all": overwrite("data.mdb", 0, b"\xff" * 8192),
    "text in its place": lambda store: (store / "data.mdb").write_text("hello"),
    "cut off": lambda store: os.truncate(store / "data.mdb", 8192),
    "empty pages": overwrite("data.mdb", 8192, bytes(2**20)),
    "usage of another version": overwrite("usage", 0, b"\xff" * 8),
    "cells of another version": overwrite("cells", 0, b"\xff" * 8),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_told(directory: Path, what: str) -> None:
    """A clear error that says what to do, in place of a crash."""
    told = damaged_in_another_process(directory, DAMAGE[what])
    assert told.startswith("StoreDamagedError"), told
    assert "remove" in told


@pytest.mark.parametrize("what", ["no database at all", "text in its place", "cut off"])
def test_damage_is_cleared_by_option(made: Callable[..., LmdbStore], directory: Path, what: str) -> None:
    """`damaged=clear` begins empty."""
    damaged_in_another_process(directory, DAMAGE[what])
    space = made("size_mb=4&damaged=clear").space(b"x")
    assert space.get(b"1") is None
    space.set(b"key", b"bvalue", None)
    assert space.get(b"key") == b"bvalue"


def test_a_store_in_use_when_the_machine_stopped_is_suspect(
    made: Callable[..., LmdbStore], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `sync` nobody knows which pages were written: it is told, or begun anew by option."""
    folder = directory / "store"
    made().space(b"x").set(b"key", b"b1", None)
    assert (folder / "boot").read_text() == power.boot_id()
    with Crowd() as crowd:  # one that is killed leaves the file there
        crowd.add(lambda: (made().space(b"x").set(b"key", b"b2", None), os.kill(os.getpid(), 9)))
        made()
        assert not (folder / "boot").exists(), "the last who left put it in order"
        crowd.answers()
    assert (folder / "boot").exists()
    monkeypatch.setattr(power, "boot_id", lambda: "another life")
    store = made()
    with pytest.raises(StoreDamagedError, match="machine stopped"):
        store.space(b"x").get(b"key")
    assert made("size_mb=4&sync=1").space(b"x").get(b"key") == b"b2"
    store = made()  # the last one left it in order
    assert store.space(b"x").get(b"key") == b"b2"
    monkeypatch.setattr(power, "boot_id", lambda: "a third life")
    monkeypatch.setattr(power, "settle", lambda _folder: None)
    assert made("size_mb=4&damaged=clear").space(b"x").get(b"key") is None


@pytest.mark.parametrize("what", ["usage of another version", "cells of another version"])
def test_damaged_pages_are_made_anew_by_option(
    made: Callable[..., LmdbStore], directory: Path, what: str
) -> None:
    """The entries stay: only what lies beside them is lost."""
    damaged_in_another_process(directory, DAMAGE[what])
    space = made("size_mb=4&damaged=clear").space(b"x")
    assert space.get(b"1") is not None
    assert space.set(b"key", b"bvalue", None)


def test_a_damaged_entry_is_told(made: Callable[..., LmdbStore]) -> None:
    """A record that is too short for its head, one that is not there, or one whose mark cannot be."""
    store = made()
    space = store.space(b"x")
    for key, record in (
        (b"short", b"\xff"),
        (b"gone", None),
        (b"mark", struct.pack("<dIH", 9e99, 2**31, 3) + b"e"),
    ):
        with store.files.env.begin(write=True) as txn:
            place = b"\xff" + key.ljust(8)[:8]
            txn.put(b"ex\0" + key, place)
            if record is not None:
                txn.put(place, record)
        for call in (space.get, lambda key: space.get_many([key])):
            with pytest.raises(StoreDamagedError, match="damaged=clear"):
                call(key)


def test_no_room_on_the_file_system_is_told(directory: Path) -> None:
    """When it is opened, not when it fills up: nobody gets SIGBUS. Shown by a limit of the process on its files."""

    def use() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MEGA, MEGA))
        cache = Cache("x", url=f"lmdb://{directory}/store?size_mb=64")
        with pytest.raises(StoreFullError, match=r"MB are wanted and .* MB are free"):
            cache.set("key", 1)
        tolerant = Cache("x", url=f"lmdb://{directory}/store?size_mb=64", on_error="miss")
        return f"{tolerant.get('key', 'default')} {tolerant.get_or_set('key', lambda: 'made')}"

    with Crowd() as crowd:
        crowd.add(use)
        assert crowd.answers() == ["default made"]


def test_memory_is_reserved_when_the_store_is_made(made: Callable[..., LmdbStore], directory: Path) -> None:
    """All files that are written through a map have no holes, so their pages cannot be missing later."""
    made("size_mb=4").open()
    for name in ("data.mdb", "lock.mdb", "usage"):
        status = (directory / "store" / name).stat()
        assert status.st_blocks * 512 >= status.st_size, name


def test_a_directory_that_cannot_be_is_told() -> None:
    """A file in its place, no right to write, a parent that is none."""
    for path in ("/dev/null/store", "/proc/store"):
        with pytest.raises(StoreUnavailableError, match=path):
            Cache("x", url=f"lmdb://{path}").get("key")


def test_a_directory_that_was_removed_is_told(directory: Path) -> None:
    """By a clear error, of what needs a file in it; what is open goes on."""
    store = LmdbStore(parse(f"lmdb://{directory}/store?size_mb=4&anonymous=1"))
    with pytest.raises(StoreUnavailableError, match="whoever made it has removed it"):
        store.number(b"x")


def test_a_directory_where_all_may_write_is_refused(directory: Path) -> None:
    """Whoever can write to a store can run code in who reads it."""
    (directory / "open").mkdir()
    (directory / "open").chmod(0o777)
    with pytest.raises(StoreUnavailableError, match="chmod o-w"):
        Cache("x", url=f"lmdb://{directory}/open").get("key")


def test_only_its_user_may_look(made: Callable[..., LmdbStore], directory: Path) -> None:
    """Pickle runs what it reads: so nobody else can write, nor read."""
    store = made()
    store.space(b"x").set(b"key", b"b", None)
    hold, listener = store.try_lock(b"l", None), store.subscribe(b"t")
    assert hold is not None
    for path in [directory / "store", *(directory / "store").rglob("*")]:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path
    listener.close()
    hold.release()


# -- forks, threads, opening again ------------------------------------------------------------------------


def test_what_is_stored_survives_a_restart(made: Callable[..., LmdbStore]) -> None:
    """Entries, numbers, and the order in which they go."""
    store = made()
    store.space(b"x").set(b"key", b"bvalue", 100.0)
    store.add(b"n", 5)
    store = made()
    assert store.space(b"x").get(b"key") == b"bvalue"
    store.add(b"n", 2)
    assert store.number(b"n") == 7
    assert store.space(b"x").set(b"other", b"b", None)
    assert sorted(store.space(b"x").keys()) == [b"key", b"other"]


def test_a_larger_store_keeps_what_was_in_the_smaller(made: Callable[..., LmdbStore]) -> None:
    """The size is that of the last who opened it alone."""
    made("size_mb=4").space(b"x").set(b"key", b"bvalue", None)
    store = made("size_mb=8")
    assert store.space(b"x").get(b"key") == b"bvalue"
    assert store.space(b"x").stats().limit_bytes > 6 * MEGA
    assert made("size_mb=4").space(b"x").get(b"key") == b"bvalue"


def test_a_lost_usage_page_loses_no_entry(made: Callable[..., LmdbStore], directory: Path) -> None:
    """New entries come behind those that are there."""
    made().space(b"x").set(b"key", b"b1", None)
    made().close()
    (directory / "store" / "usage").unlink()
    space = made().space(b"x")
    space.set(b"other", b"b2", None)
    assert (space.get(b"key"), space.get(b"other")) == (b"b1", b"b2")


def test_objects_made_before_a_fork_work_behind_it(made: Callable[..., LmdbStore], crowd: Crowd) -> None:
    """In child and grandchild, used before the fork or not, while the parent goes on."""
    store = made()
    space = store.space(b"x")
    space.set(b"parent", b"b1", None)

    def child() -> object:
        space.set(b"child", space.get(b"parent"), None)  # type: ignore[arg-type]
        with Crowd() as more:
            more.add(lambda: space.set(b"grandchild", space.get(b"child"), None))  # type: ignore[arg-type]
            return more.answers()

    crowd.add(child)
    assert crowd.answers() == [[True]]
    assert space.get(b"grandchild") == b"b1"
    assert space.set(b"parent", b"b2", None)


def test_a_fork_of_a_process_with_threads_works(made: Callable[..., LmdbStore], crowd: Crowd) -> None:
    """Threads that read all the time are no hindrance; the parent's readers are not disturbed."""
    store = made()
    space = store.space(b"x")
    space.set(b"key", b"b1", None)
    is_over = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not is_over.is_set():
                assert space.get(b"key") == b"b1"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            import warnings  # noqa: PLC0415

            with warnings.catch_warnings():
                # Python 3.12 warns of what is tested here.
                warnings.simplefilter("ignore", DeprecationWarning)
                crowd.add(lambda number=number: (space.set(b"%d" % number, b"b", None), space.get(b"key")))
        assert crowd.answers() == [(True, b"b1")] * 5
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_rows_are_not_shared_after_a_fork(made: Callable[..., LmdbStore]) -> None:
    """What a process, its forks and theirs had opened before takes no lock away when it is let go: nothing is lost.

    The first version lost a quarter of all increments so: closing any descriptor of a file drops the locks on it.
    """
    store = made()
    store.add(b"n", 1)

    def count() -> None:
        store.add(b"n", 1)
        with Crowd() as more:
            more.add(lambda: [store.add(b"n", 1) for _ in range(20_000)][:0])
            more.go()
            gc.collect()
            for _ in range(20_000):
                store.add(b"n", 1)
            more.answers()

    for _ in range(2):
        with Crowd() as crowd:
            for _ in range(2):
                crowd.add(count)
            crowd.go()
            for _ in range(20_000):
                store.add(b"n", 1)
            crowd.answers()
            store.add(b"n", 1)
    assert store.number(b"n") == 1 + 2 * (2 * 40_001 + 20_001)


def test_threads_of_one_process_count_exactly(made: Callable[..., LmdbStore]) -> None:
    """A row has one writer, but a process has threads."""
    store = made()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: [store.add(b"n", 1) for _ in range(5_000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert store.number(b"n") == 20_000


def test_rows_are_taken_over(made: Callable[..., LmdbStore], directory: Path) -> None:
    """Fifty processes one after the other need no more room than one at a time."""
    store = made()
    store.open()
    sizes = set()
    for _ in range(50):
        with Crowd() as crowd:
            crowd.add(lambda: store.add(b"n", 1))
            crowd.answers()
        sizes.add(bytes_below(directory))
    assert store.number(b"n") == 50
    assert len(sizes) == 1


def test_a_writer_that_dies_in_the_middle_leaves_neither_lock_nor_half_a_write(
    made: Callable[..., LmdbStore],
) -> None:
    """Killed with the write lock held and pages changed: the next write goes through, on what was before."""
    store = made()
    space = store.space(b"x")
    space.set(b"key", b"b1", None)

    def die() -> None:
        def change(txn: object) -> None:
            store.queue.write(txn, b"ex\0key", b"b2", 9e99)
            store.queue.write(txn, b"ex\0other", b"b2", 9e99)
            os.kill(os.getpid(), 9)

        store.write(change)

    for number in range(5):
        with Crowd() as crowd:
            crowd.add(die)
            assert crowd.answers() == [None]
        assert space.get(b"key") == b"b1"
        assert space.get(b"other") is None
        assert space.set(b"after %d" % number, b"b", None)
    assert len(list(space.keys())) == 6


def test_a_reader_that_died_keeps_nothing_from_being_used_again(
    made: Callable[..., LmdbStore], crowd: Crowd
) -> None:
    """Its slot is cleared when the map is full, or when another opens the store."""
    store = made("size_mb=4")
    space = store.space(b"x")
    space.set(b"key", b"b", None)
    read, write = os.pipe()

    def read_and_hang() -> None:
        txn = store.begin()
        txn.get(b"ex\0key")
        os.write(write, b"!")
        threading.Event().wait()

    pid = crowd.add(read_and_hang)
    crowd.go()
    assert os.read(read, 1) == b"!"
    crowd.kill(pid)
    for number in range(3_000):
        assert space.set(b"%d" % number, b"b" + b"x" * 500, None)
    os.close(read)
    os.close(write)


def test_a_reader_that_hangs_makes_writes_fail_and_nothing_worse(
    made: Callable[..., LmdbStore], crowd: Crowd
) -> None:
    """A stopped process in the middle of a read: a clear error, within bounds; all goes on when it does."""
    store = made("size_mb=4")
    space = store.space(b"x")
    space.set(b"key", b"b1", None)
    read, write = os.pipe()
    again, go_on = os.pipe()

    def read_slowly() -> None:
        txn = store.begin()
        txn.get(b"ex\0key")
        os.write(write, b"!")
        os.read(again, 1)
        txn.abort()
        os.write(write, b"!")
        os.read(again, 1)

    crowd.add(read_slowly)
    crowd.go()
    assert os.read(read, 1) == b"!"
    with pytest.raises(StoreFullError, match="size_mb"):
        space.set_many([(b"%d" % number, b"b" + b"x" * 500) for number in range(10_000)], None)
    assert space.get(b"key") in {b"b1", None}
    os.write(go_on, b"!")
    assert os.read(read, 1) == b"!"
    assert space.set(b"key", b"b2", None)
    assert space.get(b"key") == b"b2"
    os.write(go_on, b"!")
    for fd in (read, write, again, go_on):
        os.close(fd)


def test_locks_leave_no_files(made: Callable[..., LmdbStore], directory: Path) -> None:
    """A name is there while it is held; what a killed holder left is taken over."""
    store = made()
    folder = directory / "store" / "locks"
    for number in range(100):
        hold = store.try_lock(b"l%d" % number, None if number % 2 else 10.0)
        assert hold is not None
        assert hold.release()
    assert {path.name for path in folder.iterdir()} <= {"guard"}
    with Crowd() as crowd:
        crowd.add(lambda: (store.try_lock(b"left", None), os.kill(os.getpid(), 9)))
        crowd.answers()
    assert len(list(folder.iterdir())) == 2
    hold = store.try_lock(b"left", None)
    assert hold is not None
    hold.release()
    assert {path.name for path in folder.iterdir()} <= {"guard"}


def test_a_fork_does_not_hold_its_parents_lock(made: Callable[..., LmdbStore], crowd: Crowd) -> None:
    """Nor lets it go, nor keeps it when the parent does."""
    store = made()
    store.open()
    hold = store.try_lock(b"lock", None)
    assert hold is not None
    read, write = os.pipe()

    def child() -> bool:
        is_ours = hold.is_held() or hold.release()
        os.write(write, b"!")
        os.read(again, 1)
        return is_ours

    again, go_on = os.pipe()
    crowd.add(child)
    crowd.go()
    assert os.read(read, 1) == b"!"
    assert store.try_lock(b"lock", None) is None
    assert hold.release()
    other = store.try_lock(b"lock", None)
    assert other is not None
    assert other.release()
    os.write(go_on, b"!")
    assert crowd.answers() == [False]
    for fd in (read, write, again, go_on):
        os.close(fd)


def test_a_lease_that_was_left_is_not_the_next_holders(made: Callable[..., LmdbStore], crowd: Crowd) -> None:
    """A holder with a lease is killed; the next one takes the same file without a lease, and is not pushed out."""
    store = made()
    clock = Clock()
    store.clock = clock
    crowd.add(lambda: (store.try_lock(b"lock", 5.0), os.kill(os.getpid(), 9)))
    crowd.answers()
    hold = store.try_lock(b"lock", None)
    assert hold is not None
    clock.now_s += 100
    assert store.try_lock(b"lock", None) is None
    assert hold.release()


def test_a_listener_that_is_gone_leaves_no_file(made: Callable[..., LmdbStore], directory: Path) -> None:
    """Closed, it removes its own; killed, the next speaker does."""
    store = made()
    store.subscribe(b"news").close()
    with Crowd() as crowd:
        crowd.add(lambda: (store.subscribe(b"news"), os.kill(os.getpid(), 9)))
        crowd.answers()
    folder = store.topics.folder(b"news")
    assert len(list(folder.iterdir())) == 1
    store.publish(b"news", b"x")
    assert list(folder.iterdir()) == []


def test_a_listener_that_leaves_in_the_midst_of_a_word_stops_nobody(
    made: Callable[..., LmdbStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone when the speaker is about to wake it: the others are woken, and the speaker notices nothing."""
    store = made()
    leaving, staying = store.subscribe(b"news"), store.subscribe(b"news")
    plain = os.open

    def open_and_leave(path: str, flags: int, mode: int = 0o777) -> int:
        fd = plain(path, flags, mode)
        if path == str(leaving._path):
            leaving.close()
        return fd

    monkeypatch.setattr(topics.os, "open", open_and_leave)
    store.publish(b"news", b"x")
    monkeypatch.undo()
    assert staying.take() == [b"x"]
    staying.close()


def test_a_log_of_messages_is_bounded(made: Callable[..., LmdbStore]) -> None:
    """So many of the last ones, whoever listens."""
    store = made()
    for number in range(3 * topics.KEPT):
        store.publish(b"news", b"%d" % number)
    with store.begin() as txn:
        kept = [key for key in txn.cursor().iternext(values=False) if key[:1] == b"t"]
    assert len(kept) == topics.KEPT


def test_every_write_may_wait_for_the_disk(made: Callable[..., LmdbStore]) -> None:
    """`sync=1`: slow, and durable."""
    store = made("size_mb=4&sync=1")
    assert store.space(b"x").set(b"key", b"b", None)
    assert store.files.env.flags()["sync"]


def test_nothing_is_opened_before_it_is_used(directory: Path) -> None:
    """Objects are made at import, in a zygote."""
    url = f"lmdb://{directory}/store"
    for make in (Cache, Counter, Lock, Topic):
        make("x", url=url)
    assert list(directory.iterdir()) == []


def test_errors_are_of_one_family() -> None:
    """`StoreError` for what is the store's fault."""
    for kind in (StoreFullError, StoreDamagedError, StoreUnavailableError):
        assert issubclass(kind, StoreError)
        assert issubclass(kind, SharedError)
