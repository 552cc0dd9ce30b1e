"""A run, or the findings of a search, as one HTML file that needs no network.

Tables are written here; the page draws the charts from the JSON embedded in it, so that it shows
exactly results.json. Nothing from the results becomes markup: Jinja2 escapes the tables, the JSON
holds no ``<``, and a Content-Security-Policy allows the two scripts embedded here and no other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from blaster import __version__
from blaster.engine.results import Results
from blaster.report import capacity as capacity_rows
from blaster.report import rows
from blaster.verdict.capacity import Capacity

ECHARTS_VERSION = "6.1.0"
ECHARTS_SHA256 = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
"""The hash of ``page/echarts.min.js``; ``page/README.md`` gives its source."""

_MOODS = {True: "good", False: "bad"}
_MARKS = {True: "passed", False: "failed", None: "unmeasured"}


@dataclass(frozen=True)
class _Table:
    """A table. ``head`` empty: pairs of a name and a value. ``numbers``: the right-aligned columns.
    ``classes``: the CSS class of the cell in column 1 of each row."""

    title: str
    body: Sequence[tuple[str, ...]]
    head: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    classes: list[str] = field(default_factory=list)


def to_html(found: Results | Capacity, document: dict[str, Any] | None = None) -> str:
    """Render the page. ``document``: the JSON that ``found`` was read from, which may have unknown
    keys; None: encode ``found``."""
    data = msgspec.json.encode(found if document is None else document).decode()
    page = _run(found) if isinstance(found, Results) else _capacity(found)
    scripts = _file("echarts.min.js"), _file("page.js")
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    template = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(_file("page.html"))
    return template.render(
        page,
        shown=_table,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {hashes}",
        css=Markup(_file("page.css")),
        data=Markup(_embedded(data)),
        echarts=Markup(scripts[0]),
        js=Markup(scripts[1]),
        version=__version__,
        echarts_version=ECHARTS_VERSION,
    )


def _embedded(data: str) -> str:
    """Equivalent JSON that cannot end the script element around it."""
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return data


def _file(name: str) -> str:
    return (resources.files("blaster.report") / "page" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


_TABLE = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
    """
<section aria-label="{{ t.title }}"><h2>{{ t.title }}</h2>
<div class="scroll" tabindex="0"><table{% if not t.head %} class="pairs"{% endif %}>
{% if t.head %}
<thead><tr>{% for cell in t.head %}
<th scope="col"{% if loop.index0 in t.numbers %} class="number"{% endif %}>{{ cell }}</th>
{% endfor %}</tr></thead>
{% endif %}
<tbody>
{% for row in t.body %}{% set mood = t.classes[loop.index0] if t.classes else "" %}
<tr>{% for cell in row %}
{% if loop.first %}<th scope="row">{{ cell }}</th>
{% else %}<td{% if loop.index0 in t.numbers %} class="number"
{% elif mood and loop.index0 == 1 %} class="{{ mood }}"{% endif %}>{{ cell }}</td>
{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody></table></div></section>
"""
)


def _table(table: _Table) -> Markup:
    return Markup(_TABLE.render(t=table))


def _run(results: Results) -> dict[str, Any]:
    verdict = results.verdict
    checks = verdict.checks if verdict else []
    first = _Table(
        "Verdict",
        [(c.name, rows.mark(c), c.actual, c.expected) for c in checks],
        ("Check", "", "Actual", "Expected"),
        classes=[_MARKS[check.passed] for check in checks],
    )
    rest = []
    head: tuple[str, ...]
    if results.stages:
        head = ("Stage", "Sent", "Accepted", "Rate", "p50", "p99", "Max")
        rest.append(_Table("Stages", rows.stages(results), head, (1, 2, 3, 4, 5, 6)))
    if results.hosts:
        head = ("Host", "Sent", "Accepted", "Rate", "p50", "p99", "Late p99", "Clock", "Limited by")
        rest.append(_Table("Hosts", rows.hosts(results), head, (1, 2, 3, 4, 5, 6, 7)))
    if results.funnel:
        head = ("Stage", "Seen", "Lost", "Why")
        rest.append(_Table("Funnel", rows.funnel(results), head, (1, 2)))
    if results.faults:
        head = ("At", "Fault", "Of", "Recovered after", "Spans lost")
        rest.append(_Table("Faults", _faults(results), head, (4,)))
    if observed := rows.observed(results):
        rest.append(_Table("Observed (before → after)", observed))
    for found in results.verification:
        figures = [("URL", found.url), *((name, f"{n:,g}") for name, n in found.counters.items())]
        figures += [("note", text) for text in found.summary_lines()]
        rest.append(_Table(f"Verification: {found.backend}", figures))
    rest += [
        _Table("Results", rows.outcome(results)),
        _Table(
            "Violations",
            rows.violations(results),
            ("Rule", "Injected", "Detected"),
            numbers=(1, 2),
        ),
        _Table(
            "Requests by status",
            [(status, f"{count:,}") for status, count in results.requests.by_status.items()],
            ("Status", "Requests"),
            numbers=(1,),
        ),
        _Table("Configuration", rows.configuration(results)),
        _Table("Environment", _environment(results)),
    ]
    return {
        "title": f"Load test {results.scenario}",
        "subtitle": f"{results.configuration.endpoint}, {results.started_at[:19]}Z",
        "file_name": "results.json",
        "verdict": {
            "mood": _MOODS.get(verdict.passed) if verdict else "unsure",
            "word": rows.word(results),
            "limited_by": verdict.limited_by if verdict else "not known",
            "reason": verdict.reason if verdict else "",
        },
        "tiles": rows.tiles(results),
        "first": [first],
        "rest": rest,
        "notes": [f"first {s}: {text}" for s, text in results.messages.items()] + results.notes,
    }


def _faults(results: Results) -> list[tuple[str, ...]]:
    return [
        (
            f"{mark.t:.1f} s",
            mark.action if mark.duration_s is None else f"{mark.action}, {mark.duration_s:g} s",
            mark.what,
            rows.NONE if mark.recovery_s is None else f"{mark.recovery_s:g} s",
            f"{mark.spans_lost:,}",
        )
        for mark in results.faults
    ]


def _environment(results: Results) -> list[tuple[str, ...]]:
    host = results.host
    watched = results.target.processes if results.target else []
    return [
        ("blaster", host.blaster),
        ("Python", host.python),
        ("Kernel", host.kernel),
        ("CPUs", str(host.cpus)),
        ("Started", results.started_at),
        ("Ended", results.ended_at),
        ("Watched", ", ".join(f"{p.get('name')} (pid {p.get('pid')})" for p in watched) or "–"),
    ]


def _capacity(found: Capacity) -> dict[str, Any]:
    head = ("For", "Offered", "Lost", "p50", "p99", "Limited by")
    trials = [
        (
            trial.phase,
            f"{trial.load_spans_per_s:,.0f}",
            f"{trial.loss_ratio:.3%}",
            rows.ms(trial.p50_ms),
            rows.ms(trial.p99_ms),
            trial.limited_by,
        )
        for trial in found.trials
    ]
    figures = capacity_rows.rows(found)
    known = bool(found.ndr)
    return {
        "title": "Capacity",
        "subtitle": f"{len(found.trials)} trials in {found.duration_s:.0f} s",
        "file_name": "capacity.json",
        "verdict": {
            "mood": "good" if known else "unsure",
            "word": capacity_rows.no_drop_rate(found),
            "limited_by": found.limited_by,
            "reason": found.reason,
        },
        "tiles": [row for row in figures if len(row[1]) < 40 and "±" not in row[1]][:6],
        "first": [],
        "rest": [
            _Table("Findings", figures),
            _Table("Trials", trials, head, numbers=(1, 2, 3, 4)),
        ],
        "notes": [],
    }
