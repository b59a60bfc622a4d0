"""A full cache under skewed load: its hits beside those of exact LRU and of Redis, and its memory."""

from __future__ import annotations

import importlib
import shutil
import statistics
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.run.figures import Figure
from benchmarks.run.tools import program
from benchmarks.shared.bench import REDIS, Bench, forked
from prefork.shared.stores import connect
from tests.shared.worlds import RedisServer
from tests.shared.zipf import hits_of_lru, requests

SKEWS: Final = (0.8, 1.0, 1.2)
SIZES: Final = ((100, 100_000), (1_000, 20_000))
"""Bytes of a value, and how many keys there are."""
LEAST_POINTS: Final = -3.0
MOST_KB: Final = 4096
SEED: Final = 5


def zipf(bench: Bench) -> Iterator[Figure]:
    """Three skews, two sizes of values, in a store of 4 MB."""
    largest_kb = []
    for value_bytes, keys in SIZES:
        for skew in SKEWS:
            with bench.step():
                sequence = requests(keys, skew, bench.scale.zipf, SEED)
                folder = bench.folder / f"zipf-{value_bytes}-{skew}"
                hits, entries, kb = forked(partial(_run, folder, sequence, value_bytes))[0]
                largest_kb.append(kb)
                shutil.rmtree(folder)
                exact = hits_of_lru(sequence, entries)
                is_near = (hits - exact) / len(sequence) * 100 >= LEAST_POINTS
            setting = f"Zipf {skew:g}, values of {value_bytes:,} bytes, 4 MB"
            percent = [count / len(sequence) * 100 for count in (hits, exact)]
            goal, note = "within 3 points of exact LRU", f"{entries:,} entries"
            yield bench.figure(
                "hits", "%", percent[:1], setting=setting, goal=goal, is_met=is_near, note=note
            )
            yield bench.figure("hits", "%", percent[1:], setting=setting, who="exact LRU of as many")
            if bench.wish.is_wanted(REDIS):
                yield _of_redis(bench, setting, sequence, value_bytes)
    goal = f"<= {MOST_KB:,} KB"
    yield bench.figure(
        "all files of a store of 4 MB", "KB", largest_kb, goal=goal, is_met=max(largest_kb) <= MOST_KB
    )


def _of_redis(bench: Bench, setting: str, sequence: Sequence[int], value_bytes: int) -> Figure:
    if program("redis-server") is None:
        return bench.figure(
            "hits", "%", (), setting=setting, who=REDIS, failure="redis-server is not installed"
        )
    with bench.step(REDIS):
        hits, entries = _run_redis(sequence, value_bytes)
    percent = [hits / len(sequence) * 100]
    note = f"{entries:,} entries; maxmemory 4 MB, allkeys-lru"
    return bench.figure("hits", "%", percent, setting=setting, who=REDIS, note=note)


def _run(folder: Path, sequence: Sequence[int], value_bytes: int) -> tuple[int, int, int]:
    space = connect(f"lmdb://{folder}?size_mb=4").space(b"zipf")
    value = b"b" + b"x" * value_bytes
    hits = largest_kb = 0
    counts = []
    for number, key in enumerate(sequence):
        name = b"key:%d" % (key * 7919 % 1_000_003)
        if space.get(name) is not None:
            hits += 1
        else:
            space.set(name, value, None)
        if number % (len(sequence) // 20) == 0:
            size_kb = sum(path.stat().st_blocks for path in folder.rglob("*") if path.is_file()) // 2
            largest_kb = max(largest_kb, size_kb)
            if number > len(sequence) // 2:
                counts.append(len(list(space.keys())))
    return hits, int(statistics.mean(counts)), largest_kb


def _run_redis(sequence: Sequence[int], value_bytes: int) -> tuple[int, int]:
    """The same requests, a pipeline of 50 at a time: the order of hits is hardly another."""
    server = RedisServer()
    try:
        server.start()
        redis: Any = importlib.import_module("redis")
        client = redis.Redis.from_url(server.new_url())
        client.config_set("maxmemory", "4mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        value, hits = b"x" * value_bytes, 0
        for begin in range(0, len(sequence), 50):
            names = list(
                OrderedDict.fromkeys(
                    b"key:%d" % (key * 7919 % 1_000_003) for key in sequence[begin : begin + 50]
                )
            )
            answers = client.mget(names)
            missing = {name for name, answer in zip(names, answers, strict=True) if answer is None}
            hits += len(sequence[begin : begin + 50]) - len(missing)
            if missing:
                pipe = client.pipeline(transaction=False)
                for name in missing:
                    pipe.set(name, value)
                pipe.execute()
        return hits, client.dbsize()
    finally:
        server.stop()
