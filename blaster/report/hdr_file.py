"""Latencies as files for HdrHistogram's own tools."""

from __future__ import annotations

from blaster import __version__
from blaster.measure.hdr import Latencies, distribution, interval_log
from blaster.report import json_file


def write(latencies: Latencies, path: str) -> None:
    """Write a percentile distribution of the response times if ``path`` ends in ``.hgrm``, else an
    interval log."""
    if path.endswith(".hgrm"):
        lines = distribution(latencies.response)
    else:
        lines = interval_log(latencies.intervals, latencies.started_at, __version__)
    json_file.write("".join(lines), path)
