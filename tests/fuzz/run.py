"""Fuzz the readers of what comes from outside, each for so many seconds.

    python tests/fuzz/run.py SECONDS [--seed N] [NAME…]

Inputs are mutations of valid ones, by a seed that is printed: the same seed makes the same inputs.
One that breaks a reader is kept in .cache/fuzz/NAME, and named with the traceback; exit status 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.mutation import mutated  # noqa: E402
from fuzz.targets import TARGETS, Target  # noqa: E402


def fuzz(name: str, target: Target, seconds: float, seed: int) -> bool:
    """Run a target; return whether it held."""
    dice, seeds = random.Random(seed), target.seeds()
    inputs, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        data = (
            dice.choice(seeds)
            if inputs < len(seeds)
            else mutated(dice, dice.choice(seeds), target.dictionary)
        )
        inputs += 1
        try:
            target.run(data)
        except Exception:
            kept = ROOT / ".cache" / "fuzz" / name / f"crash-{seed}-{inputs}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            traceback.print_exc()
            print(f"{name}: seed {seed}, input {inputs}, kept as {kept}", file=sys.stderr)
            return False
    print(f"{name}: {inputs} inputs in {seconds:g} s, seed {seed}", flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    names = arguments.names or list(TARGETS)
    held = [fuzz(name, TARGETS[name], arguments.seconds, arguments.seed) for name in names]
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
