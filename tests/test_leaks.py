"""No native function leaks: called over and over, each leaves the process as large as it was."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable

import numpy as np
import psutil
import pytest

import blaster._native as native
from blaster._native import Batches, ColumnKernel, Scanner, Template

CALLS = 4000
MOST_GROWTH_BYTES = 2_000_000
"""Of CALLS calls; a leak of what one call takes would be larger by an order of magnitude."""

BATCH = 1000
good = bytes.fromhex("0a0612041202") + b"\x32\x00"
large = good * 4000
bad = good + b"\x0a"
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
            pytest.fail("was not refused")

    return run


CASES: dict[str, list[Callable[[], object]]] = {
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
    "ColumnKernel.fill": [
        lambda: maker.fill(none, counts, none, none, none, *columns, variants, none.copy()),
        refused(
            lambda: maker.fill(none, counts + 1, none, none, none, *columns, variants, none),
            ValueError,
        ),
    ],
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
    "Scanner.partly": [
        lambda: scanner.partly(large, 1 << 31, 5),
        lambda: scanner.partly(bad, 1 << 31, 5),
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


@pytest.mark.parametrize("name", CASES)
def test_does_not_leak(name: str) -> None:
    def rounds(calls: int) -> int:
        for _ in range(calls):
            for call in CASES[name]:
                call()
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    before = rounds(CALLS // 4)  # what is kept for good is taken here
    growth = rounds(CALLS) - before
    if growth > MOST_GROWTH_BYTES:  # another thread, or the allocator: a leak comes again
        growth = rounds(CALLS) - before - growth
    assert growth <= MOST_GROWTH_BYTES


def test_no_native_function_is_missing() -> None:
    public = set()
    for type_name, item in vars(native).items():
        if isinstance(item, type) and not type_name.startswith("_"):
            public.add(type_name)
            public.update(f"{type_name}.{n}" for n in vars(item) if not n.startswith("_"))
        elif callable(item) and not type_name.startswith("_"):
            public.add(type_name)
    assert public == set(CASES)
