"""What ``--cluster``, ``--hosts`` and ``--on-host-lost`` mean."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from blaster.cluster.cluster import Cluster
from blaster.errors import UsageError
from blaster.units import quoted

ON_HOST_LOST = ("continue", "stop")


@contextmanager
def joined(url: str | None, hosts: int | None, on_host_lost: str) -> Iterator[Cluster | None]:
    """The cluster, None where none is asked for. UsageError for what is not possible, otherwise as
    :func:`blaster.cluster.dask.connect`."""
    if on_host_lost not in ON_HOST_LOST:
        raise UsageError(
            f"--on-host-lost {quoted(on_host_lost)}: must be {' or '.join(ON_HOST_LOST)}"
        )
    if url is None:
        if hosts is not None:
            raise UsageError(f"--hosts {hosts}: needs --cluster")
        yield None
        return
    if importlib.util.find_spec("distributed") is None:
        raise UsageError(
            f"--cluster {quoted(url)}: needs Dask distributed: pip install 'blaster[cluster]'"
        )
    from blaster.cluster.dask import connect

    with connect(url, hosts, stop_on_loss=on_host_lost == "stop") as cluster:
        yield cluster
