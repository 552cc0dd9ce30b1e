"""What is built, what is missing, which package brings it, and what it would gain."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

from blaster.engine.machine import this_host
from blaster.measure.instructions import InstructionCounter
from blaster.transport import compression
from blaster.transport.choice import wire_is_built, wire_speaks_tls, wire_takes_zstd


@dataclass(frozen=True, slots=True)
class Finding:
    """``ok`` is None for what is only said; ``advice`` where something is missing."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Looks at this installation and this machine."""
    here = this_host()
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("numpy", "grpcio", "protobuf", "psutil")
    )
    findings = [
        Finding("blaster", None, f"{here.blaster} on Python {here.python}, {platform.platform()}"),
        Finding("machine", None, f"{here.cpus} CPUs"),
        Finding("libraries", None, versions),
        Finding("blaster._native", True, "built: stamping and scanning in C"),
        _wire(),
        _compression(),
        _spy(),
        _instructions(),
    ]
    if sys.platform != "linux":
        advice = "run on Linux where figures matter"
        findings.append(Finding("system", False, "processes are not tied to their parent", advice))
    return findings


def _wire() -> Finding:
    name = "blaster._wire"
    if wire_speaks_tls():
        return Finding(
            name, True, "built on libnghttp2 and OpenSSL: the wire transport, the native receiver"
        )
    if wire_is_built():
        return Finding(
            name,
            False,
            "built on libnghttp2, without OpenSSL",
            "apt install libssl-dev, then install blaster again; it gains the wire transport where "
            "the target wants TLS",
        )
    return Finding(
        name,
        False,
        "not built: the wire transport and the sink's native receiver are missing",
        "apt install pkg-config libnghttp2-dev zlib1g-dev, then install blaster again; it gains "
        "some 4 times the spans per CPU-second of grpcio at 1,000 spans a request, 12 times at 100",
    )


def _compression() -> Finding:
    found = [library for name in ("gzip", "zstd") if (library := compression.library(name))]
    if wire_takes_zstd():
        found.append("libzstd in blaster._wire")
    missing = []
    if not {"isal", "zstandard"} <= set(found):
        missing.append("pip install 'blaster[compression]'")
    if wire_is_built() and not wire_takes_zstd():
        missing.append("apt install libzstd-dev, then install blaster again")
    advice = f"{'; '.join(missing)}; gains gzip at some 4 times zlib's speed, and zstd"
    return Finding("compression", not missing, ", ".join(found), advice if missing else "")


def _spy() -> Finding:
    if shutil.which("py-spy", path=f"{sys.prefix}/bin") or shutil.which("py-spy"):
        return Finding("py-spy", True, "found: blaster profile can draw flame graphs")
    advice = "pip install 'blaster[profile]'; it gains flame graphs in blaster profile"
    return Finding("py-spy", False, "not found", advice)


def _instructions() -> Finding:
    with InstructionCounter() as counter:
        pass
    if counter.count is not None:
        return Finding("instruction counter", True, "readable")
    return Finding(
        "instruction counter",
        False,
        "not readable: none in this machine, or not for this user",
        "needs hardware counters and kernel.perf_event_paranoid of 2 or less; "
        "it gains instructions per span in blaster profile",
    )
