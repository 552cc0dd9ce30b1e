"""The machine that a run is made on."""

from __future__ import annotations

import os
import platform

from blaster import __version__
from blaster.engine.results import Host


def this_host() -> Host:
    """This machine; ``cpus`` are those that this process may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Host(cpus or 1, platform.release(), platform.python_version(), __version__)
