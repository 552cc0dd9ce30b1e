"""Interleaving: which part of which block of traces each request of a run carries.

Block b holds the traces from number b·p on, and each of its parts goes out in a request of its
own. Requests take block after block and part after part; where traces are to be scattered, those
of a *window* of blocks are shuffled, so that the parts of a trace go out of order, between those of
others, as far apart as the window is long. Either way it follows from the request's number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from blaster.payload.shape import Int64

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Interleaving:
    """``parts`` of each block, shuffled within windows of ``window`` blocks (1: not shuffled);
    ``blocks`` in the whole run (None: without end)."""

    parts: int = 1
    window: int = 1
    blocks: int | None = None

    def block_and_part(self, request: Int64) -> tuple[Int64, Int64]:
        """The block and the part of each request."""
        if self.window == 1:
            return np.divmod(request, self.parts)
        first, size, at = self.window_of(request)
        full = self.window * self.parts
        stride = np.full(len(request), _stride(full), np.int64)
        short = size != full
        if short.any():
            stride[short] = _stride(int(size[short][0]))
        block, part = np.divmod(at * stride % size, self.parts)
        return first + block, part

    def window_of(self, request: Int64) -> tuple[Int64, Int64, Int64]:
        """The first block of each request's window, the requests in that window, and the
        request's place among them."""
        window, at = np.divmod(request, self.window * self.parts)
        first = window * self.window
        size = np.full(len(request), self.window * self.parts, np.int64)
        if self.blocks is not None:
            np.minimum(size, (self.blocks - first) * self.parts, out=size)
        return first, size, at


def _stride(size: int) -> int:
    """The number nearest to size · 0.618 that has no divisor in common with it: its multiples
    visit every place once, neighbours far apart."""
    wanted = max(1, round(size * _GOLDEN))
    return next(
        stride
        for step in range(size + 1)
        for stride in (wanted + step, wanted - step)
        if stride > 0 and gcd(stride, size) == 1
    )
