"""Outputs: the files that results are written to, each with its own option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from blaster.engine.results import Results
from blaster.errors import UsageError
from blaster.listener import Listener
from blaster.measure.hdr import Latencies
from blaster.report import github, hdr_file, json_file
from blaster.report.csv_file import to_csv
from blaster.report.junit import to_junit
from blaster.report.markdown import to_markdown
from blaster.verdict.capacity import Capacity


@dataclass(frozen=True)
class Outputs:
    """The outputs: file names, ``-`` for standard output, None for none."""

    json: str | None = None
    markdown: str | None = None
    html: str | None = None
    csv: str | None = None
    junit: str | None = None
    github_summary: bool = False

    def check(self) -> None:
        """Refuse outputs that cannot be written, before anything is measured. Raises UsageError."""
        for option, path in self._given():
            json_file.check_writable(option, path)
        if self.github_summary:
            github.check()
        to_stdout = [option for option, path in self._given() if path == "-"]
        if len(to_stdout) > 1:
            raise UsageError(f"{' and '.join(to_stdout)}: only one can be - (standard output)")

    @property
    def any(self) -> bool:
        """Whether there is any output."""
        return bool(self._given()) or self.github_summary

    @property
    def takes_stdout(self) -> bool:
        """Whether one of them is standard output."""
        return any(path == "-" for _, path in self._given())

    def _given(self) -> Sequence[tuple[str, str]]:
        files = ("json", "markdown", "html", "csv", "junit")
        pairs = [(f"--{name}", getattr(self, name)) for name in files]
        return [(option, path) for option, path in pairs if path is not None]

    def write(self, found: Results | Capacity, raw: dict[str, Any] | None = None) -> None:
        """Write them all. Raises UsageError for a format that findings of a search do not have."""
        for option, path in self._given():
            json_file.write(_text(option, found, raw), path)
        if self.github_summary:
            github.add(_text("--markdown", found, raw))


class RunFiles(Listener):
    """The files that are written by the run itself: the results so far, and the latencies.

    ``json``: as in Outputs; ``hdr``: file names. Raises UsageError for what can't be written.
    """

    def __init__(self, json: str | None, hdr: Sequence[str]) -> None:
        self._json, self._hdr = json, hdr
        for path in hdr:
            json_file.check_writable("--hdr", path)

    @property
    def wants_latencies(self) -> bool:
        return bool(self._hdr)

    def checkpoint(self, results: Results) -> None:
        if self._json is not None and self._json != "-":
            json_file.write(json_file.to_json(results), self._json)

    def latencies(self, latencies: Latencies) -> None:
        for path in self._hdr:
            hdr_file.write(latencies, path)


def _text(option: str, found: Results | Capacity, raw: dict[str, Any] | None) -> str:
    if option == "--html":
        from blaster.report.html import to_html  # with Jinja, which few runs need

        return to_html(found, raw)
    if option == "--csv":
        return to_csv(found)
    if option == "--json":
        return json_file.to_json(found)
    if isinstance(found, Capacity):
        raise UsageError(f"{option}: is for the results of a run, not for a search's findings")
    forms: dict[str, Callable[[Results], str]] = {
        "--markdown": to_markdown,
        "--junit": to_junit,
    }
    return forms[option](found)
