"""Outputs: the files that results are written to, each with its own option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from blaster.engine.results import Results
from blaster.errors import BlasterError, UsageError
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

    def writers(
        self, found: Results | Capacity, raw: dict[str, Any] | None = None
    ) -> list[Callable[[], None]]:
        """A function for each output, which writes it. It raises BlasterError, and UsageError for a
        form that a capacity search does not have."""
        writers: list[Callable[[], None]] = [
            partial(_write, option, path, found, raw) for option, path in self._given()
        ]
        if self.github_summary:
            writers.append(lambda: github.add(_text("--markdown", found, raw)))
        return writers


class RunOutputs(Listener):
    """The outputs of a run, some of which are written or gathered while it goes on.

    ``hdr``: files of its latencies. Raises UsageError for what can't be written.
    """

    def __init__(self, outputs: Outputs, hdr: Sequence[str]) -> None:
        self._outputs, self._hdr = outputs, hdr
        self._latencies: Latencies | None = None
        outputs.check()
        for path in hdr:
            json_file.check_writable("--hdr", path)

    @property
    def wants_latencies(self) -> bool:
        return bool(self._hdr)

    def checkpoint(self, results: Results) -> None:
        path = self._outputs.json
        if path is not None and path != "-":
            with suppress(OSError):  # the next one, or the results at the end, may have more luck
                json_file.replace(json_file.to_json(results), Path(path))

    def latencies(self, latencies: Latencies) -> None:
        self._latencies = latencies

    def latency_writers(self) -> list[Callable[[], None]]:
        """A function for each file of latencies, which writes it."""
        if self._latencies is None:
            return []
        return [partial(hdr_file.write, self._latencies, path) for path in self._hdr]


def write_each(writers: Sequence[Callable[[], None]]) -> None:
    """Call all writers; then raise what the first that failed raised, with what the others said."""
    failures: list[BlasterError] = []
    for write in writers:
        try:
            write()
        except BlasterError as error:
            failures.append(error)
    if len(failures) > 1:
        raise BlasterError("; ".join(str(error) for error in failures))
    if failures:
        raise failures[0]


def _write(option: str, path: str, found: Results | Capacity, raw: dict[str, Any] | None) -> None:
    json_file.write(_text(option, found, raw), path)


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
