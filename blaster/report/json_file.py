"""Output files, written whole or not at all; results.json is one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from blaster.engine.results import Results
from blaster.errors import BlasterError, UsageError
from blaster.streams import write_output
from blaster.units import quoted
from blaster.verdict.capacity import Capacity


def to_json(results: Results | Capacity) -> str:
    """The results as indented JSON, schema 1."""
    return msgspec.json.format(msgspec.json.encode(results), indent=2).decode() + "\n"


def write(text: str, path: str) -> None:
    """Write ``text`` to ``path``, or to standard output for ``-``. Readers of the path never see a
    partial file.

    If that fails, the text is saved in the system's temporary folder, which BlasterError names, so
    that no measurement is lost.
    """
    try:
        if path == "-":
            write_output(text)
        else:
            replace(text, Path(path))
    except OSError as error:
        where = "standard output" if path == "-" else path
        raise BlasterError(
            f"{where} cannot be written ({error.strerror}): {_saved(text)}"
        ) from None


def _saved(text: str) -> str:
    """Save the text in the system's temporary folder; return where it is."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="blaster-", delete=False
        ) as file:
            file.write(text)
    except OSError as error:
        return f"nor can the temporary folder ({error.strerror})"
    return f"the results are in {file.name}"


def replace(text: str, target: Path) -> None:
    """Write a file whole or not at all; a device or a pipe is written as it is. Raises OSError."""
    if target.exists() and not target.is_file():
        with open(target, "w", encoding="utf-8") as device:
            device.write(text)
        return
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def check_writable(option: str, path: str | None) -> None:
    """Refuse a path that cannot be written, before anything is measured. Raises UsageError."""
    if path is None or path == "-":
        return
    parent = Path(path).parent
    if not parent.is_dir():
        raise UsageError(f"{option} {quoted(path)}: the folder {quoted(str(parent))} is not there")
    if Path(path).is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"{option} {quoted(path)}: must be a file that can be written")
