"""Baselines: results saved under a name, each a folder of results files."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from blaster.errors import BlasterError, UsageError
from blaster.report.document import Document, read
from blaster.units import quoted

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def folder(given: str | None) -> Path:
    """The folder of baselines: the one given, or blaster/baselines in ``XDG_DATA_HOME``
    (~/.local/share if that is not set, by the XDG Base Directory Specification)."""
    if given is not None:
        return Path(given)
    home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share"
    return base / "blaster" / "baselines"


def group(path: str) -> list[Document]:
    """Read a results file, or a folder with the files of repeats. Raises UsageError."""
    if not os.path.isdir(path):
        return [read(path)]
    files = sorted(str(file) for file in Path(path).glob("*.json"))
    if not files:
        raise UsageError(f"{quoted(path)}: the folder holds no .json file")
    return [read(file) for file in files]


def load(name: str, where: Path) -> list[Document]:
    """Read the results saved under this name. Raises UsageError."""
    kept = where / _checked("--baseline", name)
    if not kept.is_dir():
        known = sorted(p.name for p in where.iterdir() if p.is_dir()) if where.is_dir() else []
        known = [name for name in known if _NAME.fullmatch(name)]
        names = f"there are {', '.join(known[:20])}" if known else "there is none yet"
        raise UsageError(f"--baseline {quoted(name)}: not in {where}; {names}")
    return group(str(kept))


def save(name: str, documents: Sequence[Document], where: Path) -> Path:
    """Save the results under this name, replacing older ones; return their folder."""
    target = where / _checked("--save-baseline", name)
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where, prefix=".saving-") as scratch:
            fresh = Path(scratch) / "new"
            fresh.mkdir()
            for number, document in enumerate(documents, 1):
                text = msgspec.json.format(msgspec.json.encode(document.raw), indent=2)
                (fresh / f"{number:03}.json").write_bytes(text + b"\n")
            if target.exists():
                target.rename(Path(scratch) / "old")
            fresh.rename(target)
    except OSError as error:
        raise BlasterError(
            f"--save-baseline {quoted(name)}: cannot be written in {where} ({error.strerror})"
        ) from None
    return target


def _checked(option: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{option} {quoted(name)}: must be letters, digits, dots, dashes and underscores, "
            "at most 100, and not begin with a dot or a dash"
        )
    return name


def limits(texts: Sequence[str], known: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """Parse ``--max-regression``: the share for all figures (None: not given), and by figure.

    Raises UsageError.
    """
    every: float | None = None
    named: dict[str, float] = {}
    for text in texts:
        name, equals, share = text.rpartition("=")
        number = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*%?\s*", share)
        if number is None:
            raise UsageError(
                f"--max-regression {quoted(text)}: must be a percentage such as 10%, or FIGURE=10%"
            )
        value = float(number[1]) / 100
        if not equals:
            every = value
        elif name.strip() in known:
            named[name.strip()] = value
        else:
            raise UsageError(
                f"--max-regression {quoted(text)}: {quoted(name.strip())} is not compared; "
                f"must be one of {', '.join(known)}"
            )
    return every, named
