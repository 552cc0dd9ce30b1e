"""Stamping for tests: the batches of some columns, and batches made one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from blaster.payload.columns import Columns, ColumnSource
from blaster.payload.shape import Int64
from blaster.payload.template import Template


def stamp(template: Template, columns: Columns) -> list[bytes]:
    """Return the batches that the kernel stamps from these columns."""
    filling = template.filling(columns.arrays)
    takes = sum(len(template.variants[v].data) for v in columns.variants.tolist())
    out = bytearray(takes + template.frame_bytes * len(columns.counts))
    offsets = np.zeros(len(columns.counts) + 1, np.int64)
    total = template.compile().stamp_into(filling, columns.variants, columns.counts, out, offsets)
    assert total == offsets[-1]
    return [bytes(out[a:b]) for a, b in pairwise(offsets.tolist())]


def made(
    source: ColumnSource,
    template: Template,
    first: Int64,
    counts: Int64,
    ended: Int64,
    parts: Int64,
) -> tuple[list[bytes], list[int]]:
    """The batches that are made one after another, and the spans of each."""
    batches = source.batches(template.compile())
    spans = source.begin(batches, first, counts, ended, parts=parts)
    return list(batches), spans.tolist()
