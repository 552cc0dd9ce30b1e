"""Writes seed requests for fuzz_json_scan into the directory given, one a file."""

import random
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

from seeds_scan import full_request  # noqa: E402

from tests.support import otlp_json  # noqa: E402


def main() -> None:
    directory = Path(sys.argv[1])
    for seed in range(24):
        document = otlp_json.encode(full_request(), random.Random(seed))
        (directory / f"full-{seed}").write_bytes(document)
    (directory / "bare").write_bytes(b'{"resourceSpans":[{"scopeSpans":[{"spans":[{},{}]}]}]}')


if __name__ == "__main__":
    main()
