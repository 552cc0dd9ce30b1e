"""Random runs by seed: their accounts, stages, exit status and files, whatever was done to them."""

from __future__ import annotations

import os

import pytest
from support import random_runs

SEEDS = range(int(os.environ.get("BLASTER_RANDOM_RUNS", "30")))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_run(seed: int) -> None:
    """Every equation holds; a failure shows the whole command and what befell its processes."""
    run = random_runs.draw(seed)
    problems = random_runs.perform(run).problems
    assert not problems, "\n".join([str(run), *problems])


def test_a_seed_is_a_run() -> None:
    assert [random_runs.draw(seed) for seed in SEEDS] == [random_runs.draw(seed) for seed in SEEDS]
