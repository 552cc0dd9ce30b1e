"""The results as a Markdown page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from blaster.engine.results import Results
from blaster.report import rows


def to_markdown(results: Results) -> str:
    """Title with date, Configuration, Results, Violations breakdown, Conclusion."""
    assert results.verdict is not None
    verdict = results.verdict
    return "\n".join(
        [
            f"# Load test {_escaped(results.scenario)}, {results.started_at[:10]}",
            "",
            "## Configuration",
            "",
            *table(("Setting", "Value"), rows.configuration(results)),
            "",
            "## Results",
            "",
            *table(("Figure", "Value"), rows.outcome(results)),
            "",
            *_stages(results),
            "## Violations breakdown",
            "",
            *table(("Rule", "Injected", "Detected"), rows.violations(results)),
            "",
            *_funnel(results),
            *_observed(results),
            "## Conclusion",
            "",
            f"**{rows.word(results)}.** "
            f"Limited by: {verdict.limited_by} ({_escaped(verdict.reason)}).",
            "",
            *(
                _escaped(
                    f"- {check.name}: {rows.mark(check)} (expected {check.expected}; "
                    f"actual {check.actual})"
                )
                for check in verdict.checks
            ),
            "",
        ]
    )


def _observed(results: Results) -> list[str]:
    """The metrics and alerts that were scraped, if any."""
    body = rows.observed(results)
    head = ("Metric", "Before → after", "Where")
    return ["## Observed", "", *table(head, body), ""] if body else []


def _funnel(results: Results) -> list[str]:
    """The funnel, if a backend was asked."""
    if not results.funnel:
        return []
    head = ("Stage", "Seen", "Lost", "Why")
    return ["## Funnel", "", *table(head, rows.funnel(results)), ""]


def _stages(results: Results) -> list[str]:
    """A row for each stage, if there are several."""
    if len(results.stages) < 2:
        return []
    return [
        "## Stages",
        "",
        *table(("Stage", "Sent", "Accepted", "Rate", "p50", "p99", "Max"), rows.stages(results)),
        "",
    ]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. Cells are escaped."""
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines]


def _escaped(text: str) -> str:
    """The text without any markup in it."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", text)
