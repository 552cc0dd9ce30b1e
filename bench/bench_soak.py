"""A long soak of the embedded sink: does anything grow, and do results stay small?

The memory of the generator and of the sink is judged as in any run: first third against last
third and the slope with its confidence, once it lasted five minutes. The results must not grow
with the run: at most 3,600 points and a megabyte or so. Targets: nothing lost, no leak of the
generator, the file under 2 MB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import parse, report

RATE = 10_000
MOST_BYTES = 2_000_000
MOST_POINTS = 3600


def main() -> None:
    hours = ("--hours", {"type": float, "default": 1.0, "help": "how long (default 1)"})
    arguments = parse(__doc__, hours)
    seconds = 15 if arguments.short else round(arguments.hours * 3600)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "soak.json")
        command = [sys.executable, "-m", "blaster", "run", "--embedded", "--rate", str(RATE)]
        command += ["--duration", f"{seconds}s", "--warmup", f"{seconds // 10}s"]
        command += ["--arrivals", "poisson", "--quiet", "--json", str(path)]
        subprocess.run(command, check=False)
        size = path.stat().st_size
        results = json.loads(path.read_text())
    spans, leak = results["spans"], results["leak"]
    lost = spans["scheduled"] - spans["accepted"]
    report(
        "soak",
        {"generator": [results["generator"]["cpu_percent"]["avg"]]},
        unit="percent of a core",
        seconds=seconds,
        lost=lost,
        results_bytes=size,
        points=len(results["series"]),
        leak={who: leak[who]["reason"] for who in ("target", "generator")},
        steady=results["steady"]["reason"],
        targets={
            "nothing lost": lost == 0,
            "generator does not leak": leak["generator"]["leaking"] is not True,
            "results stay small": size < MOST_BYTES and len(results["series"]) <= MOST_POINTS,
        },
    )


if __name__ == "__main__":
    main()
