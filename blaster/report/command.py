"""``blaster report``: renders one results file, or compares several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from blaster.errors import UsageError
from blaster.report import baselines, comparison, github, json_file
from blaster.report.document import Document
from blaster.report.outputs import Outputs
from blaster.report.show import show
from blaster.units import quoted
from blaster.verdict import comparison as judge
from blaster.verdict.comparison import Comparison


@dataclass(frozen=True)
class ReportOptions:
    """The options of ``blaster report``."""

    files: Sequence[str]
    json: str | None = None
    markdown: str | None = None
    html: str | None = None
    csv: str | None = None
    junit: str | None = None
    github_summary: bool = False
    baseline: str | None = None
    save_baseline: str | None = None
    baselines: str | None = None
    max_regression: Sequence[str] = ()
    quiet: bool = False


def report(options: ReportOptions) -> bool:
    """Render or compare; return whether there is a regression. Raises BlasterError."""
    outputs = Outputs(
        options.json,
        options.markdown,
        options.html,
        options.csv,
        options.junit,
        options.github_summary,
    )
    outputs.check()
    groups = [(path, baselines.group(path)) for path in options.files]
    where = baselines.folder(options.baselines)
    if options.baseline is not None:
        groups.insert(0, (options.baseline, baselines.load(options.baseline, where)))
    _check_kinds(groups)
    screen = Console(stderr=outputs.takes_stdout, soft_wrap=True)
    regressed = False
    if len(groups) > 1:
        regressed = _compare(options, groups, screen)
    elif options.save_baseline is None or outputs.any:
        _render(options, outputs, groups[0])
    if options.save_baseline is not None:
        if regressed:
            message = f"not saved as {options.save_baseline}: there is a regression"
        else:
            kept = groups[1:] if options.baseline is not None else groups
            documents = [document for _, group in kept for document in group]
            message = f"saved as {baselines.save(options.save_baseline, documents, where)}"
        if not options.quiet:
            Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
    return regressed


def _check_kinds(groups: Sequence[tuple[str, list[Document]]]) -> None:
    first = groups[0][1][0]
    for _, documents in groups:
        for document in documents:
            if document.kind != first.kind:
                raise UsageError(
                    f"{quoted(document.path)}: is of a {document.kind}, and "
                    f"{quoted(first.path)} of a {first.kind}: they cannot be compared"
                )


def _render(options: ReportOptions, outputs: Outputs, group: tuple[str, list[Document]]) -> None:
    path, documents = group
    if len(documents) > 1:
        raise UsageError(
            f"{quoted(path)}: holds {len(documents)} results; name one to render it, or another "
            "folder, file or --baseline to compare with"
        )
    (document,) = documents
    show(document.found, outputs, quiet=options.quiet, raw=document.raw)


def _compare(
    options: ReportOptions, groups: Sequence[tuple[str, list[Document]]], screen: Console
) -> bool:
    for option, path in (("html", options.html), ("csv", options.csv), ("junit", options.junit)):
        if path is not None:
            raise UsageError(f"--{option} {quoted(path)}: is for one file, and several were given")
    known = [figure.name for figure in judge.figures(groups[0][1][0].found) if figure.sign]
    limit, named = baselines.limits(options.max_regression, known)
    before = groups[0][0], [document.found for document in groups[0][1]]
    found: list[Comparison] = []
    for path, documents in groups[1:]:
        after = path, [document.found for document in documents]
        every = judge.MAX_REGRESSION if limit is None else limit
        found.append(judge.compare(before, after, named, every))
    if options.json is not None:
        json_file.write(comparison.to_json(found), options.json)
    if options.markdown is not None:
        json_file.write(comparison.to_markdown(found), options.markdown)
    if options.github_summary:
        github.add(comparison.to_markdown(found))
    if not options.quiet:
        for one in found:
            comparison.show(one, screen)
    return any(one.regressed for one in found)
