"""Random runs, any number of them: their accounts, series, exit status and files are checked.

Each seed is a run of its own; a seed with a problem is printed with its whole command. One JSON
object at the end.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from common import parse, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support import random_runs


def main() -> None:
    arguments = parse(
        __doc__,
        ("--runs", {"type": int, "default": 100, "help": "how many (default 100)"}),
        ("--seed", {"type": int, "default": 0, "help": "the first one's seed (default 0)"}),
    )
    statuses: Counter[int] = Counter()
    failed = []
    runs = 5 if arguments.short else arguments.runs
    for seed in range(arguments.seed, arguments.seed + runs):
        ended = random_runs.perform(random_runs.draw(seed))
        statuses[ended.status] += 1
        if ended.problems:
            failed.append(seed)
            print(ended.run, *ended.problems, sep="\n    ", file=sys.stderr, flush=True)
    report(
        "random runs",
        {},
        runs=runs,
        exit_statuses=statuses,
        failed_seeds=failed,
        targets={"no problem": not failed},
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
