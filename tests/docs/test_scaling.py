"""The plans in docs/scaling.md are what the arithmetic says, from the inputs that the page names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.scaling import Inputs, plan
from tests.docs.deploying import ROOT, default_of
from tests.docs.test_snippets import Snippet, find_snippets

PLANS = [one for one in find_snippets(ROOT / "docs" / "scaling.md") if one.info.startswith("text plan")]


@pytest.mark.parametrize("snippet", PLANS, ids=lambda one: one.name)
def test_each_plan_is_made_again(snippet: Snippet) -> None:
    """The command beside it prints it."""
    arguments = snippet.info.removeprefix("text plan").split()
    command = [sys.executable, "-m", "benchmarks.scaling", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90, cwd=ROOT)
    assert done.stdout == snippet.code


def test_the_page_has_plans() -> None:
    """Three: by CPU, a light one, by connections."""
    assert len(PLANS) == 3


def test_a_plan_counts_with_the_server_s_own_bound() -> None:
    """Connections of a worker are as many as --connections says; they decide where nobody computes."""
    given = Inputs(users=1e6, online=1, seconds_between_requests=1e6)
    assert given.connections_a_worker == default_of("--connections")
    made = plan(given)
    assert made.machines == -(-1_000_000 // (4 * 16_384)) + 1
    assert made.cores < 1


def test_twice_the_users_need_twice_the_cores() -> None:
    """And one machine to spare, not two."""
    one, two = plan(Inputs(users=1e7)), plan(Inputs(users=2e7))
    assert two.cores == pytest.approx(2 * one.cores)
    assert two.machines == pytest.approx(2 * one.machines - 1, abs=1)
