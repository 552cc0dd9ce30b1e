"""Calls native functions over and over and prints what each call leaves behind, as JSON.

A process of its own (`python -m support.leaks`), under PYTHONMALLOC=malloc, so that every byte is
malloc's, which says how many are in use: {name: {"bytes": a call, "references": {object: gained}}}.
References are counted of all objects that the calls share, and of the modules' types.

    --leak bytes|reference    one more case that leaks 16 bytes, or a reference, a call
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import blaster._native as native
from blaster._native import Batches, ColumnKernel, Scanner, Template

try:
    import blaster._wire as wire
except ImportError:  # it is optional
    wire = None  # type: ignore[assignment]

WARM_UP, CALLS, ROUNDS = 50, 1000, 3
"""What is kept for good is taken in the warm-up; of the rounds, the best counts."""

Calls = list[Callable[[], object]]

BATCH = 1000
good = bytes.fromhex("0a0612041202") + b"\x32\x00"
large = good * 4000
bad = good + b"\x0a"
large_json = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%s{}]}]}]}' % (b"{}," * 4000)
scanner = Scanner()
template = Template((((0x0A, b"\x10"),),), ((bytes(8), ((0, 8, 0, 0),), (8,), 0),))
column = np.zeros(BATCH, np.int64)
variants = np.zeros(BATCH, np.uint16)
counts = np.array([BATCH], np.int64)
out = bytearray(64 * BATCH)
offsets = np.zeros(2, np.int64)
cells = np.array([[0, 1, 9, 1, 0]])
entries = np.array([[0, 0, 9]])
maker = ColumnKernel(1, 1, 0, 1, (1,), 1, cells, entries)
one = np.ones(1, np.int64)
none = np.zeros(1, np.int64)
columns = [np.zeros(BATCH, np.int64) for _ in range(5)]
six = Template((((0x0A, b"\x10"),),), ((bytes(80), ((0, 8, 2, 0),), (8, 8, 8, 8, 8, 4), 0),))
batches = Batches(maker, six)
digits = np.zeros(BATCH, np.uint32)


def begin() -> None:
    batches.begin(none, counts, none, none, none, digits, none.copy())


def refused(call: Callable[[], object], *errors: type[Exception]) -> Callable[[], None]:
    def run() -> None:
        with contextlib.suppress(*errors):
            call()
            raise AssertionError("was not refused")

    return run


NATIVE: dict[str, Calls] = {
    "ColumnKernel": [
        lambda: ColumnKernel(1, 1, 0, 1, (50,), 1, cells.repeat(50, 0), entries.repeat(50, 0)),
        refused(lambda: ColumnKernel(1, 1, 0, 1, (2,), 1, cells, entries), ValueError),
    ],
    "ColumnKernel.entries": [
        lambda: maker.entries(none, one, none),
        refused(lambda: maker.entries(none, one, one), ValueError),
    ],
    "ColumnKernel.variants": [
        lambda: maker.variants(none, one, none, variants.copy()),
        refused(lambda: maker.variants(none, one, none, variants[:0].copy()), ValueError),
    ],
    "ColumnKernel.fill": [
        lambda: maker.fill(none, counts, none, none, none, *columns, variants, none.copy()),
        refused(
            lambda: maker.fill(none, counts + 1, none, none, none, *columns, variants, none),
            ValueError,
        ),
    ],
    "Batches": [
        lambda: Batches(maker, six),
        refused(lambda: Batches(maker, template), ValueError),
        refused(lambda: Batches(template, maker), TypeError),  # type: ignore[arg-type]
    ],
    "Batches.begin": [
        lambda: (begin(), next(batches), begin()),
        refused(lambda: batches.begin(none, one, one, none, none, digits, none.copy()), ValueError),
        refused(
            lambda: batches.begin(none, one, none, none, none, digits[:0], none.copy()), ValueError
        ),
        refused(lambda: batches.begin(none, one, none, none, none, digits, one[:0]), ValueError),
    ],
    "Batches.source": [lambda: batches.source],
    "hex_digits": [
        lambda: native.hex_digits(column),
        refused(lambda: native.hex_digits("x"), TypeError),  # type: ignore[arg-type]
    ],
    "decimal_digits": [
        lambda: native.decimal_digits(column),
        refused(lambda: native.decimal_digits(variants), TypeError),
        refused(lambda: native.decimal_digits(column - 1), ValueError),
    ],
    "Scanner": [
        lambda: Scanner(capacity=100_000),
        refused(lambda: Scanner(capacity=0), ValueError),
        refused(lambda: Scanner(capacity="x"), TypeError),  # type: ignore[arg-type]
    ],
    "Scanner.request": [
        lambda: scanner.request(large),
        lambda: scanner.request(bad),
        refused(lambda: scanner.request(memoryview(large)[::2]), BufferError),
    ],
    "Scanner.request_json": [
        lambda: scanner.request_json(large_json),
        lambda: scanner.request_json(bad),
        refused(lambda: scanner.request_json("{}"), TypeError),  # type: ignore[arg-type]
    ],
    "Scanner.partly": [
        lambda: scanner.partly(large, False, 1 << 31, 5),
        lambda: scanner.partly(bad, False, 1 << 31, 5),
        lambda: scanner.partly(large_json, True, 1 << 31, 5),
        refused(lambda: scanner.partly(large), TypeError),  # type: ignore[call-arg]
    ],
    "Scanner.counts": [scanner.counts],
    "Scanner.watch": [lambda: scanner.watch(7), refused(lambda: scanner.watch(-1), OverflowError)],
    "Scanner.take": [scanner.take],
    "Scanner.sampling": [lambda: scanner.sampling],
    "Template": [
        lambda: Template(
            (((0x0A, bytes(500)),),), ((bytes(900), ((0, 8, 0, 0),) * 50, (8,) * 9, 0),)
        ),
        refused(
            lambda: Template(((),), ((bytes(9), ((0, 8, 0, 0), (2, 8, 0, 0)), (8,), 0),)),
            ValueError,
        ),
    ],
    "Template.stamp_into": [
        lambda: template.stamp_into((column,), variants, counts, out, offsets),
        refused(
            lambda: template.stamp_into((column,), variants, counts, bytearray(1), offsets),
            ValueError,
        ),
    ],
}


def _wire_cases() -> dict[str, Calls]:
    """Those of blaster._wire, as far as they need no peer: tests of the wire have one."""
    receiver = wire.Receiver(scanner_capacity=1000)
    free = wire.Receiver(scan=False)
    nobody = free.port
    free.close()
    stopped = np.ones(1, np.int64)
    rows = ((1, 1 << 32, 0, 1 << 62, 0, 0, False, False, b""),)
    sent, blocked, running = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(1, np.int64)
    fields = ((b":method", b"POST"), (b"x", b"y"))
    data = memoryview(bytes(10))
    two = np.array([0, 10])

    def client(host: str = "127.0.0.1", in_flight: int = 2) -> Any:
        return wire.Client(
            (host,), str(nobody), fields, sent, blocked, running, 1, in_flight, 10**6
        )

    lonely = client()

    def send(buffer: object = data) -> None:
        """The client has no connection: the request fails at its deadline."""
        lonely.send(buffer, two, none, one, 1 << 62, 0, False)
        lonely.drain(1 << 62)
        lonely.take()

    def run() -> None:
        begin()
        send(batches.source)

    return {
        "Receiver": [
            lambda: wire.Receiver(scanner_capacity=1000),
            refused(lambda: wire.Receiver(capacity=-1), ValueError),
        ],
        "Receiver.port": [lambda: receiver.port],
        "Receiver.run": [
            lambda: receiver.run(stopped),
            refused(lambda: receiver.run(bytes(8)), BufferError),
        ],
        "Receiver.counts": [receiver.counts],
        "Receiver.traffic": [receiver.traffic],
        "Receiver.watch": [lambda: receiver.watch(7)],
        "Receiver.take": [receiver.take],
        "Receiver.scan": [
            lambda: receiver.scan(large, False, 1 << 31, 5),
            lambda: receiver.scan(large_json, True, 0, 5),
            lambda: receiver.scan(bad, False, 0, 5),
            refused(lambda: receiver.scan(good, False, 1 << 33, 5), ValueError),
        ],
        "Receiver.fault": [
            lambda: receiver.fault(1, rows),
            refused(lambda: receiver.fault(1, ((0, *rows[0][1:]),)), ValueError),
        ],
        "Receiver.fault_hits": [receiver.fault_hits],
        "Receiver.freeze": [
            lambda: receiver.freeze(0.0),
            refused(lambda: receiver.freeze(-1), ValueError),
        ],
        "Receiver.close": [lambda: wire.Receiver(scanner_capacity=1000).close()],
        "Client": [
            client,
            refused(lambda: client("nowhere"), ValueError),
            refused(lambda: client(in_flight=0), ValueError),
        ],
        "Client.connect": [lambda: lonely.connect(1 << 62)],
        "Client.send": [
            send,
            run,
            refused(lambda: lonely.send(data, one, none, one, 0, 0, False), ValueError),
            refused(lambda: lonely.send("x", two, none, one, 0, 0, False), TypeError),
        ],
        "Client.wait": [lambda: lonely.wait(0)],
        "Client.drain": [lambda: lonely.drain(0)],
        "Client.close": [lambda: client().close()],
        "Client.take": [lonely.take],
        "Client.messages": [lonely.messages],
        "Client.in_flight": [lonely.in_flight],
        "Client.holds": [lambda: lonely.holds(data)],
    }


WIRE: dict[str, Calls] = {} if wire is None else _wire_cases()


class Mallinfo2(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_libc = ctypes.CDLL(None)
_libc.mallinfo2.restype = Mallinfo2
_libc.malloc.restype = ctypes.c_void_p


def in_use() -> int:
    """Bytes that malloc has given away, its own overhead included."""
    info = _libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def shared() -> dict[str, object]:
    """Objects that a call may forget to let go of."""
    found: dict[str, object] = {"None": None, "True": True, "False": False, "()": (), "b''": b""}
    for module in (native, *([] if wire is None else [wire])):
        found[module.__name__] = module
        found |= {f"{module.__name__}.{k}": v for k, v in vars(module).items()}
    mine = (np.ndarray, bytes, bytearray, ColumnKernel, Batches, Scanner, Template)
    return found | {name: value for name, value in globals().items() if isinstance(value, mine)}


def measure(calls: Calls) -> dict[str, Any]:
    """Bytes a call, and the references that the shared objects gained in one round."""
    watched = shared()
    names, objects = list(watched), list(watched.values())
    best, gained = sys.maxsize, dict.fromkeys(names, sys.maxsize)
    for calls_left in (WARM_UP, *[CALLS] * ROUNDS):
        gc.collect()
        references = [sys.getrefcount(item) for item in objects]
        before = in_use()
        for _ in range(calls_left):
            for call in calls:
                call()
        gc.collect()
        after = in_use()
        if calls_left == WARM_UP:
            continue
        best = min(best, after - before)
        for name, item, count in zip(names, objects, references, strict=True):
            gained[name] = min(gained[name], sys.getrefcount(item) - count)
    # A leak is one in every call: a few references that come and go are the interpreter's.
    return {
        "bytes": best / CALLS,
        "references": {name: n for name, n in gained.items() if n >= CALLS // 2},
    }


LEAKS: dict[str, Callable[[], object]] = {
    "bytes": lambda: _libc.malloc(ctypes.c_size_t(16)),
    "reference": lambda: ctypes.pythonapi.Py_IncRef(ctypes.py_object(template)),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--leak", choices=LEAKS)
    leak = parser.parse_args().leak
    cases = NATIVE | WIRE if leak is None else {leak: [LEAKS[leak]]}
    print(json.dumps({name: measure(calls) for name, calls in cases.items()}))


if __name__ == "__main__":
    main()
