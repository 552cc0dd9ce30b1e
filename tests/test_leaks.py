"""No native function leaks: called over and over, each gives back every byte and reference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import leaks

import blaster._native as native

TESTS = Path(__file__).parent
BYTES_A_CALL = 8
"""Half of the smallest leak that is to be seen; what the interpreter itself gains is far less."""


def measured(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "support.leaks", *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=TESTS,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "PYTHONMALLOC": "malloc",
        },
        timeout=120,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What each case leaves behind."""
    return measured()


@pytest.mark.parametrize("name", [*leaks.NATIVE, *leaks.WIRE])
def test_does_not_leak(name: str, found: dict[str, Any]) -> None:
    assert found[name]["bytes"] < BYTES_A_CALL
    assert found[name]["references"] == {}


def test_a_leak_of_16_bytes_is_seen() -> None:
    assert measured("--leak", "bytes")["bytes"]["bytes"] >= 2 * BYTES_A_CALL


def test_a_reference_too_many_is_seen() -> None:
    assert measured("--leak", "reference")["reference"]["references"].keys() == {"template"}


def public(module: ModuleType) -> set[str]:
    """The functions, types and methods of a native module."""
    names = set()
    for name, item in vars(module).items():
        if isinstance(item, type) and not name.startswith("_"):
            names.add(name)
            names.update(f"{name}.{n}" for n in vars(item) if not n.startswith("_"))
        elif callable(item) and not name.startswith("_"):
            names.add(name)
    return names


def test_no_native_function_is_missing() -> None:
    assert public(native) == set(leaks.NATIVE)
    assert leaks.wire is None or public(leaks.wire) == set(leaks.WIRE)
