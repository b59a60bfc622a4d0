"""Freed memory is kept while a worker works, and given back when it rests: in a process of its own each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator")

PROGRAM = """
import re, resource
from pathlib import Path
from prefork.http import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held_kb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def rounds(count):
    before = faults()
    for _ in range(count):
        pieces = [b"x" * 250_000 for _ in range(16)]
        del pieces
    return (faults() - before) / count

if {keeps}:
    memory.keep_freed({environ})
rounds(3)
per_round = rounds(50)
full = held_kb()
memory.give_back()
print(per_round, full - held_kb())
"""


def measured(*, keeps: bool, environ: str = "{}") -> tuple[float, int]:
    """Page faults of a round of 4 MB, and kilobytes that were given back at the end."""
    program = PROGRAM.format(keeps=keeps, environ=environ)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=90
    )
    faults, kilobytes = ended.stdout.split()
    return float(faults), int(kilobytes)


def test_what_is_freed_costs_no_page_fault_again() -> None:
    faults, given_back_kb = measured(keeps=True)
    assert faults < 10
    assert given_back_kb > 2000


def test_without_it_there_are_hundreds() -> None:
    """Otherwise there is nothing to be done here any more."""
    faults, _ = measured(keeps=False)
    assert faults > 100


@pytest.mark.parametrize("environ", ['{"GLIBC_TUNABLES": "x"}', '{"MALLOC_ARENA_MAX": "2"}'])
def test_who_has_set_the_allocator_up_is_left_alone(environ: str) -> None:
    faults, _ = measured(keeps=True, environ=environ)
    assert faults > 100
