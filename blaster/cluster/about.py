"""What a host has: names, cores, versions; and whether all hosts of a cluster have the same."""

from __future__ import annotations

import hashlib
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import blaster
from blaster.engine.machine import this_host
from blaster.errors import UsageError
from blaster.transport.choice import wire_is_built

PACKAGES = ("numpy", "msgspec", "grpcio", "protobuf", "opentelemetry-proto", "distributed")
"""What must have the same version everywhere, besides Python and blaster."""


@dataclass(frozen=True, slots=True)
class About:
    """``versions`` by name; ``wire``: whether that transport is built."""

    name: str
    cpus: int
    kernel: str
    versions: Mapping[str, str]
    wire: bool


def here() -> About:
    """This host."""
    ours = this_host()
    versions = {"python": ours.python, "blaster": f"{ours.blaster} ({_digest()})"}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "none"
    return About(socket.gethostname(), ours.cpus, platform.release(), versions, wire_is_built())


def check_same(parent: About, hosts: Mapping[str, About]) -> None:
    """UsageError, naming the host and both versions, where a host's differ from the parent's."""
    wrong = [
        f"{address} has {name} {about.versions.get(name, 'none')} and not {version}"
        for address, about in hosts.items()
        for name, version in parent.versions.items()
        if about.versions.get(name) != version
    ]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise UsageError(
            f"--cluster: all hosts must have the versions of this one: {'; '.join(wrong[:4])}{more}"
        )


def _digest() -> str:
    """Of the program's own text: two trees of one version can differ."""
    found = hashlib.sha256()
    root = Path(blaster.__file__).parent
    for file in sorted(root.rglob("*.py")):
        found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:12]
