"""Arrays that the C kernel takes: of integers of one size, and nothing else that has that size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support import leaks

from blaster._native import ColumnKernel

pytestmark = pytest.mark.native

FLOATS = np.ones(1, np.float64)
PAIRS = np.zeros(1, [("a", np.int32), ("b", np.int32)])
SWAPPED = np.ones(1, np.dtype(np.int64).newbyteorder())

CALLS: dict[str, Callable[[object], object]] = {
    "cells": lambda a: ColumnKernel(1, 1, 0, 1, (1,), 1, a, leaks.entries),
    "entries": lambda a: ColumnKernel(1, 1, 0, 1, (1,), 1, leaks.cells, a),
    "counts": lambda a: leaks.maker.entries(leaks.none, a, leaks.none),
    "first": lambda a: leaks.batches.begin(
        a, leaks.one, leaks.none, leaks.none, leaks.none, leaks.digits, leaks.none.copy()
    ),
    "spans": lambda a: leaks.batches.begin(
        leaks.none, leaks.one, leaks.none, leaks.none, leaks.none, leaks.digits, a
    ),
    "offsets": lambda a: leaks.template.stamp_into(
        (leaks.column,), leaks.variants, leaks.counts, leaks.out, a
    ),
    "words": leaks.native.decimal_digits,
}


@pytest.mark.parametrize("array", [FLOATS, PAIRS, SWAPPED], ids=["floats", "pairs", "swapped"])
@pytest.mark.parametrize("name", CALLS)
def test_only_integers(name: str, array: object) -> None:
    with pytest.raises(TypeError, match="aligned integers of 8 bytes"):
        CALLS[name](array)
