"""Arrivals: how the requests of a pacer follow one another: at random, or several at once.

Both are pacers around a pacer. A request holds ``group`` spans and is due when its first span is;
all its spans have that time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from blaster.pacing.pacer import Int64, Pacer

BLOCK = 4096
"""Arrivals of a Poisson process that are drawn together."""


class Bursts:
    """``group`` spans at once, each time that the first of them is due by ``inner``."""

    def __init__(self, inner: Pacer, group: int) -> None:
        self._inner, self._group = inner, group
        self.total, self.duration_ns = inner.total, inner.duration_ns

    def times(self, n: Int64) -> Int64:
        return self._inner.times(n // self._group * self._group)

    def due(self, elapsed_ns: int) -> int:
        return min(self.total, -(-self._inner.due(elapsed_ns) // self._group) * self._group)

    def rate(self, elapsed_ns: int) -> float:
        return self._inner.rate(elapsed_ns)


class Poisson:
    """Arrivals of ``group`` spans each, a Poisson process with the rate of ``inner``.

    By time rescaling: arrivals of a process of unit rate, put where the integral of ``inner``'s
    rate reaches them. They are drawn in blocks of BLOCK: within a block they are a Poisson process
    that is known to have so many arrivals, which is as many sorted uniform numbers (Ross,
    Introduction to Probability Models, theorem 5.2). So the time of any arrival is a function of
    its number and the seed alone, and the count is exact after each block and over the run; over
    stretches longer than a block the count varies less than that of a free Poisson process.
    """

    def __init__(self, inner: Pacer, group: int, seed: int) -> None:
        self._inner, self._group, self._seed = inner, group, seed
        self.total, self.duration_ns = inner.total, inner.duration_ns
        self._arrivals = -(-self.total // group)
        self._drawn: dict[int, Int64] = {}

    def times(self, n: Int64) -> Int64:
        arrival = n // self._group
        block, place = np.divmod(arrival, BLOCK)
        times = np.empty(n.shape, np.int64)
        for number in np.unique(block).tolist():
            here = block == number
            times[here] = self._block(number)[place[here]]
        return times

    def due(self, elapsed_ns: int) -> int:
        if elapsed_ns < 0:
            return 0
        # A block's arrivals lie between the block's own ends, so only its neighbours can differ.
        number = min(self._inner.due(elapsed_ns), max(self.total - 1, 0)) // (self._group * BLOCK)
        while True:
            times = (
                self._block(number) if number * BLOCK < self._arrivals else np.empty(0, np.int64)
            )
            arrived = int(np.searchsorted(times, elapsed_ns, side="right"))
            if arrived == 0 and number > 0:
                number -= 1
                if int(self._block(number)[-1]) <= elapsed_ns:
                    return min(self.total, (number + 1) * BLOCK * self._group)
            elif arrived == len(times) and (number + 1) * BLOCK < self._arrivals:
                number += 1
                if int(self._block(number)[0]) > elapsed_ns:
                    return number * BLOCK * self._group
            else:
                return min(self.total, (number * BLOCK + arrived) * self._group)

    def rate(self, elapsed_ns: int) -> float:
        return self._inner.rate(elapsed_ns)

    def _block(self, number: int) -> Int64:
        """The times of the arrivals of one block, ascending."""
        if number not in self._drawn:
            first = number * BLOCK
            count = min(BLOCK, self._arrivals - first)
            begin = first * self._group
            end = min((first + count) * self._group, self.total)
            bits = np.random.Philox(key=self._seed, counter=[0, 0, 0, number])
            places = np.sort(np.random.Generator(bits).random(count))
            if len(self._drawn) >= 8:
                self._drawn.pop(next(iter(self._drawn)))
            self._drawn[number] = self._when(begin + places * (end - begin))
        return self._drawn[number]

    def _when(self, position: npt.NDArray[np.float64]) -> Int64:
        """When ``inner`` reaches each position; between two spans, in a line."""
        whole = np.minimum(position.astype(np.int64), self.total - 1)
        before = self._inner.times(whole)
        last = whole + 1 >= self.total
        after = self._inner.times(np.where(last, whole, whole + 1))
        after = np.where(last, self.duration_ns - 1, after)
        step = (position - whole) * (after - before)
        times: Int64 = before + np.minimum(step.astype(np.int64), after - before)
        return times
