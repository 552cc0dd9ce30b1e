"""Seeds for fuzz_wire_receiver: what the tests' hostile client does.

seeds_wire_receiver.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.hostile_client import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOOD,
    HEADERS,
    ROWS,
    ZSTD_ROWS,
    block,
)

RAW_START, RAW_FRAMES, DIRECT, TICKS, SLOW_READER, PIECES, LATER, FAULTS = (
    1 << i for i in range(8)
)
"""The options in the first byte of the fuzzer's input."""

LONGEST = 8192


def main() -> None:
    folder = Path(sys.argv[1])
    for i, row in enumerate([*ROWS, *ZSTD_ROWS]):
        sent, raw = row.sent[:LONGEST], RAW_START if row.raw else 0
        for how in (0, DIRECT | PIECES, TICKS | PIECES, SLOW_READER, FAULTS | TICKS):
            (folder / f"row-{i}-{how}").write_bytes(bytes([RAW_FRAMES | raw | how]) + sent)
    head = block(("x", "y" * 9))
    head += b"\x88" * (-len(head) % 16)
    framed = bytes([HEADERS, END_HEADERS, 1, len(head) // 16]) + head
    framed += bytes([DATA, END_STREAM, 1, 255]) + GOOD
    for how in (0, FAULTS, FAULTS | TICKS, FAULTS | TICKS | LATER | SLOW_READER):
        (folder / f"framed-{how}").write_bytes(bytes([how]) + framed)
    calls = b"".join(framed[:2] + bytes([n]) + framed[3:] for n in range(1, 120, 2))
    (folder / "faults").write_bytes(bytes([FAULTS | TICKS]) + calls)


if __name__ == "__main__":
    main()
