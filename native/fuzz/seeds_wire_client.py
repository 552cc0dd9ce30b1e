"""Seeds for fuzz_wire_client: what good and bad peers say, by way of tests/support/hostile.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support import hostile

GREETED_AND_READ, STREAMS, PIECE = 3, 4, 16

SAYINGS = {
    "answers": b"".join(hostile.answer(stream) for stream in (1, 3, 5, 7)),
    "partial": hostile.answer(1, b"\x0a\x0a\x08\x03\x12\x06too ol"),
    "status": hostile.answer(1, status="14") + hostile.answer(3, status="8"),
    "trailers": hostile.headers(
        1,
        hostile.GRPC
        + hostile.fields(
            ("grpc-status", "14"),
            ("grpc-message", "caf%C3%A9 100%"),
            ("grpc-status-details-bin", hostile.retry_info()),
        ),
        5,
    ),
    "continuation": hostile.headers(1, hostile.GRPC[:3], 0)
    + hostile.frame(hostile.CONTINUATION, 4, 1, hostile.GRPC[3:]),
    "settings": hostile.settings({1: 0, 3: 2, 4: 1 << 20, 5: 1 << 20})
    + hostile.window(0, 1 << 20)
    + hostile.window(1, 1 << 20)
    + hostile.settings({4: 10})
    + hostile.answer(1),
    "goaway": hostile.goaway(1) + hostile.answer(1),
    "reset": hostile.reset(1, 7)
    + hostile.reset(3, 8)
    + hostile.frame(hostile.PING, 0, 0, bytes(8)),
    "bomb": hostile.headers(1, hostile.BOMB),
    "http": hostile.headers(1, hostile.fields((":status", "103")))
    + hostile.headers(1, hostile.fields((":status", "503")), 5),
    "padded": hostile.frame(hostile.DATA, 8, 1, b"\x02abcde\0\0"),
}

for name, said in SAYINGS.items():
    Path(sys.argv[1], name).write_bytes(bytes([GREETED_AND_READ, STREAMS, PIECE]) + said)
Path(sys.argv[1], "greeting").write_bytes(bytes([1, 1, 255]) + hostile.settings({3: 1}))
