"""Reports: the page in a real browser, the files for other tools, and what hostile input does."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import browser, cli

from blaster.engine.results import Results
from blaster.engine.series import Thinned
from blaster.errors import UsageError
from blaster.measure.heat import Column, heat_of, merge_columns, row_begin_us
from blaster.measure.histogram import Histogram
from blaster.report import html, rows
from blaster.report.document import of, read

RUN_CHARTS = {"rates", "latency", "percentiles", "heat", "cpu", "memory", "flight"}
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of one short run of two stages."""
    folder = tmp_path_factory.mktemp("report")
    ran = cli.blaster(
        *("run", "--embedded", "--stages", "200@2s,400@1s", "--seed", "7"),
        *("--json", str(folder / "r.json"), "--html", str(folder / "r.html")),
        *("--csv", str(folder / "r.csv"), "--junit", str(folder / "r.xml"), "--github-summary"),
        GITHUB_STEP_SUMMARY=str(folder / "summary.md"),
    )
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture(scope="module")
def results(made: Path) -> dict[str, Any]:
    return cli.results(made / "r.json")


def test_the_schema_is_one_and_takes_the_results(results: dict[str, Any]) -> None:
    """`blaster schema` prints a valid JSON Schema, which takes a run's file and nothing less."""
    shown = json.loads(cli.blaster("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(shown)
    validator = jsonschema.Draft202012Validator(shown)
    validator.validate(results)
    assert not validator.is_valid({**results, "spans": None})
    assert all(kind["description"] for kind in shown["$defs"].values())


def test_the_achieved_rate_is_what_was_accepted(results: dict[str, Any]) -> None:
    """Of a target that took half, the summary does not claim all as achieved."""
    found = msgspec.convert(results, Results)
    found.rate.accepted_spans_per_s, found.rate.achieved_spans_per_s = 50.0, 100.0
    assert dict(rows.outcome(found))["Achieved rate"] == "50.0 spans/s accepted, 100.0 sent"


@pytest.fixture(scope="module")
def chromium(
    chromium_binaries: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[browser.Browser]:
    with browser.opened(chromium_binaries, tmp_path_factory.mktemp("profile")) as found:
        yield found


def written(document: dict[str, Any], folder: Path) -> Path:
    """The page of a document, through the reader that files go through."""
    path = folder / "page.html"
    path.write_text(html.to_html(of(document, "x").found, document))
    return path


def test_the_page_shows_what_results_json_says(
    made: Path, results: dict[str, Any], chromium: browser.Browser
) -> None:
    """No console message, no request, every chart drawn, and every figure that of results.json."""
    chromium.open(made / "r.html")
    drawn = chromium.run(browser.CANVASES)
    assert set(drawn) == RUN_CHARTS
    assert all(pixels > 1000 for pixels, _ in drawn.values()), drawn
    assert chromium.console_messages() == []
    assert chromium.run("return performance.getEntriesByType('resource').length") == 0
    shown, series = chromium.run(browser.SERIES), results["series"]
    begun = [0.0, *(point["t"] for point in series)]
    for name, key in (("offered", "scheduled"), ("accepted", "accepted"), ("failed", "failed")):
        want = [p[key] / max(p["t"] - b, 1e-3) for p, b in zip(series, begun, strict=False)]
        assert [y for _, y in shown["rates"][name]] == pytest.approx(want)
    for chart, name, key, factor in (
        ("latency", "p50", "p50_ms", 1),
        ("latency", "p99", "p99_ms", 1),
        ("latency", "p99.9", "p999_ms", 1),
        ("cpu", "target", "target_cpu", 1),
        ("cpu", "generator", "generator_cpu", 1),
        ("memory", "target", "target_rss", 1e-6),
        ("flight", "in flight", "in_flight", 1),
    ):
        got = shown[chart][name]
        assert [x for x, _ in got] == [p["t"] for p in series]
        want = [None if p[key] is None else p[key] * factor for p in series]
        assert [y for _, y in got] == pytest.approx(want)
    heat = shown["heat"]["requests"]
    assert sum(cell[3] for cell in heat) == results["requests"]["sent"]
    distribution = results["latency_distribution"]["response"]
    assert len(shown["percentiles"]["response"]) == sum(share < 1 for share, _ in distribution)
    text = chromium.run("return document.body.innerText")
    verdict = results["verdict"]
    assert text.index("Passed") < text.index(verdict["reason"]) < text.index("spans lost")
    assert f"{results['spans']['accepted']:,}" in text
    assert f"{results['latency_ms']['response']['p99']:,.3f} ms" in text


@pytest.mark.parametrize(
    ("width", "scheme", "dark"), [(1280, "light", False), (1280, "dark", True), (390, "dark", True)]
)
def test_light_dark_and_phone(
    made: Path, chromium: browser.Browser, width: int, scheme: str, dark: bool
) -> None:
    """The page follows the system's scheme, its button overrides it, and nothing is cut off."""
    chromium.open(made / "r.html", width=width, scheme=scheme, mobile=width < 500)
    back = "return getComputedStyle(document.body).backgroundColor"
    assert (sum(map(int, re.findall(r"\d+", chromium.run(back)))) < 200) is dark
    assert chromium.run("return document.documentElement.scrollWidth <= innerWidth")
    drawn = chromium.run(browser.CANVASES)
    assert all(pixels > 1000 and 250 < wide < width for pixels, wide in drawn.values()), drawn
    press = "document.getElementById('theme').click(); " + back
    assert sum(map(int, re.findall(r"\d+", chromium.run(press)))) > 600  # light, whatever it was
    assert chromium.console_messages() == []


def test_keyboard_and_tables(
    made: Path, results: dict[str, Any], chromium: browser.Browser
) -> None:
    """A focused chart is walked with the arrows, aloud; its table has a row for each point."""
    from selenium.webdriver.common.keys import Keys

    chromium.open(made / "r.html")
    chart = chromium.driver.find_element("id", "chart-latency")
    assert chart.get_attribute("tabindex") == "0" and chart.get_attribute("aria-label")
    chart.send_keys(Keys.ARROW_RIGHT)
    said = chromium.run("return document.querySelector('#chart-latency + .said').textContent")
    assert "p99" in said and f"{results['series'][0]['p50_ms']:.3f}"[:4] in said
    chart.send_keys("+")
    zoom = "return window.blasterCharts.rates.getOption().dataZoom[0]"
    assert chromium.run(zoom)["end"] < 100, "charts over time zoom together"
    chart.send_keys(Keys.ESCAPE)
    assert chromium.run(zoom)["end"] == 100
    summary = chromium.driver.find_element("css selector", "#chart-latency ~ details summary")
    summary.send_keys(Keys.ENTER)
    count = "return document.querySelectorAll('#chart-latency ~ details tbody tr').length"
    chromium.driver.implicitly_wait(2)
    chromium.driver.find_element("css selector", "#chart-latency ~ details tbody tr")
    assert chromium.run(count) == len(results["series"])


def test_the_download_is_the_json(
    made: Path, results: dict[str, Any], chromium: browser.Browser, tmp_path: Path
) -> None:
    """The button gives the document, integers past 2^53 included."""
    page = written({**results, "seed": 2**62 + 1}, tmp_path)
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chromium.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    chromium.open(page)
    chromium.run("document.getElementById('download').click()")
    for _ in range(100):
        if (tmp_path / "results.json").exists():
            break
        chromium.run("return new Promise((done) => setTimeout(done, 50))")
    assert json.loads((tmp_path / "results.json").read_text()) == {**results, "seed": 2**62 + 1}


def _everywhere(node: Any) -> Any:
    """The document with every text hostile, but for those that choose a form."""
    if isinstance(node, str):
        return node + HOSTILE
    if isinstance(node, list):
        return [_everywhere(item) for item in node]
    if isinstance(node, dict):
        return {key: _everywhere(value) for key, value in node.items()}
    return node


def test_texts_of_results_are_never_markup(
    results: dict[str, Any], chromium: browser.Browser, tmp_path: Path
) -> None:
    """A results.json full of script tags is shown, and nothing of it runs."""
    hostile = _everywhere(results)
    hostile["messages"] = {HOSTILE: HOSTILE}
    hostile["configuration"]["faults"] = [f"{HOSTILE},from=1s,for=1s", f"status{HOSTILE},at=500ms"]
    hostile["faults"] = [
        {"t": 0.5, "action": HOSTILE, "what": HOSTILE, "spans_lost": 0}
        | {"duration_s": 0.5, "recovery_s": None}
    ]
    hostile["funnel"] = [{"stage": HOSTILE, "spans": 5, "lost": 2, "reason": HOSTILE}]
    hostile["requests"]["by_status"] = {HOSTILE: 3}
    chromium.open(written(hostile, tmp_path))
    assert set(chromium.run(browser.CANVASES)) == RUN_CHARTS | {"funnel"}
    for chart in ("rates", "funnel"):
        chromium.run(
            f"window.blasterCharts['{chart}'].dispatchAction("
            "{type: 'showTip', seriesIndex: 0, dataIndex: 0})"
        )
    assert chromium.run("return window.hacked === undefined")
    assert chromium.run("return document.images.length") == 0
    assert HOSTILE in chromium.run("return document.querySelector('.notes').innerText")
    assert chromium.console_messages() == []


def test_what_is_absent_is_left_out(
    results: dict[str, Any], chromium: browser.Browser, tmp_path: Path
) -> None:
    """Results without target, sink, series, heat map and verdict still make a page."""
    bare = {**results, "target": None, "sink": None, "series": [], "stages": [], "verdict": None}
    del bare["latency_heat"], bare["latency_distribution"]
    chromium.open(written(bare, tmp_path))
    assert chromium.run(browser.CANVASES) == {}
    assert "nothing to draw" in chromium.run("return document.body.innerText")
    unwatched = {**results, "target": None}
    unwatched["series"] = [{**p, "target_cpu": None, "target_rss": None} for p in results["series"]]
    chromium.open(written(unwatched, tmp_path))
    assert set(chromium.run(browser.SERIES)["cpu"]) == {"generator"}
    assert chromium.console_messages() == []


def test_an_hour_stays_below_5_mb(
    results: dict[str, Any], chromium: browser.Browser, tmp_path: Path
) -> None:
    """An hour at one-second resolution, and a full heat map, are drawn from less than 5 MB."""
    rng = np.random.default_rng(1)
    heat: Thinned[Column] = Thinned(merge_columns, 240)
    series = []
    for second in range(3600):
        histogram = Histogram()
        histogram.record(rng.lognormal(14, 1.5, 200).astype(np.int64))
        heat.add(Column.of(second + 1.0, histogram))
        point = {**results["series"][0], "t": second + 1.003, "p99_ms": rng.random() * 100}
        series.append({**point, "accepted": int(rng.integers(1e6)), "target_rss": int(2e8)})
    found = heat_of(heat.items)
    assert found is not None and len(found.ends_s) <= 240
    columns = {"ends_s": found.ends_s, "bounds_ms": found.bounds_ms, "counts": found.counts}
    page = written({**results, "series": series, "latency_heat": columns}, tmp_path)
    assert page.stat().st_size < 5e6
    chromium.open(page)
    drawn = chromium.run(browser.CANVASES)
    assert set(drawn) == RUN_CHARTS and all(pixels > 1000 for pixels, _ in drawn.values())
    assert chromium.console_messages() == []


def trial(load: float, accepted: float) -> dict[str, Any]:
    spans = {"scheduled": 100, "accepted": 100, "late": 0, "rejected": 0, "failed": 0}
    figures = {"loss_ratio": 1 - accepted / load, "p50_ms": 1.0, "p99_ms": None, "grace_ms": 1.0}
    return {
        **spans,
        **figures,
        "phase": "search",
        "load_spans_per_s": load,
        "accepted_spans_per_s": accepted,
        "duration_s": 1.0,
        "unknown": 0,
        "not_offered": 0,
        "concurrency": 1.0,
        "target_cpu_percent": None,
        "generator_cpu_percent": None,
        "broken": [],
        "limited_by": "target",
        "reason": "",
    }


def test_the_capacity_curve(chromium: browser.Browser, tmp_path: Path) -> None:
    """The findings of a search are drawn with the law's fit, which goes through their trials."""
    from blaster.verdict.usl import fit, throughput

    loads = [1000.0, 2000.0, 4000.0, 8000.0, 16000.0]
    accepted = throughput(np.array(loads) / 1000, 1000, 0.02, 0.001).tolist()
    law = fit([load / 1000 for load in loads], accepted)
    document = {
        "schema": 1,
        "ndr": 1500.0,
        "limited_by": "target",
        "trials": [trial(*pair) for pair in zip(loads, accepted, strict=True)],
        "usl": json.loads(__import__("msgspec").json.encode(law)),
    }
    chromium.open(written(document, tmp_path))
    assert chromium.run(browser.CANVASES)["curve"][0] > 1000
    shown = chromium.run(browser.SERIES)["curve"]
    assert shown["trials"] == [list(pair) for pair in zip(loads, accepted, strict=True)]
    fitted = np.array(shown["the law's fit"])
    assert np.interp(loads, fitted[:, 0], fitted[:, 1]) == pytest.approx(accepted, rel=0.01)
    assert "1,500 spans/s" in chromium.run("return document.getElementById('verdict').innerText")
    assert chromium.console_messages() == []


def test_the_library_is_the_one_that_was_published() -> None:
    """echarts.min.js is the file whose hash is written down, with its licence beside it."""
    page = resources.files("blaster.report") / "page"
    data = (page / "echarts.min.js").read_bytes()
    assert hashlib.sha256(data).hexdigest() == html.ECHARTS_SHA256
    assert html.ECHARTS_VERSION in (page / "README.md").read_text()
    assert "Apache License" in (page / "LICENSE.echarts").read_text()


def test_csv_junit_and_summary(made: Path, results: dict[str, Any]) -> None:
    """The series as rows, the checks as test cases, the Markdown in GitHub's summary."""
    rows = list(csv.DictReader(io.StringIO((made / "r.csv").read_text())))
    assert [float(row["t"]) for row in rows] == [point["t"] for point in results["series"]]
    assert sum(int(row["accepted"]) for row in rows) == results["spans"]["accepted"]
    suite = ET.parse(made / "r.xml").getroot()[0]
    checks = results["verdict"]["checks"]
    assert [case.get("name") for case in suite.iter("testcase")] == [c["name"] for c in checks]
    assert suite.get("failures") == "0" and suite.get("tests") == str(len(checks))
    assert "## Conclusion" in (made / "summary.md").read_text()


def test_junit_of_failed_and_unmeasured_checks(made: Path, results: dict[str, Any]) -> None:
    """A failed check is a failure with its figures, an unmeasured one is skipped; control
    characters and markup in them leave the XML well formed."""
    checks = [
        {"name": "a <b>\x00", "expected": "< 1", "actual": "2 & more", "passed": False},
        {"name": "c", "expected": "< 1", "actual": "not measured", "passed": None},
    ]
    changed = {**results, "verdict": {**results["verdict"], "passed": False, "checks": checks}}
    (made / "failed.json").write_text(json.dumps(changed))
    ran = cli.blaster("report", str(made / "failed.json"), "--quiet", "--junit", "-")
    assert (ran.returncode, ran.stderr) == (0, "")
    cases = list(ET.fromstring(ran.stdout.partition("?>")[2]).iter("testcase"))
    failure = cases[0].find("failure")
    assert failure is not None and failure.get("message") == "expected < 1, actual 2 & more"
    assert cases[1].find("skipped") is not None and cases[0].get("name") == "a <b>\ufffd"


def test_report_renders_what_run_wrote(made: Path) -> None:
    """``blaster report`` makes the same page, Markdown and summary of the file as the run did."""
    page, text = made / "again.html", made / "again.md"
    ran = cli.blaster(
        *("report", str(made / "r.json"), "--html", str(page), "--markdown", str(text)),
    )
    assert ran.returncode == 0, ran.stderr
    assert page.read_text() == (made / "r.html").read_text()
    assert text.read_text() == (made / "summary.md").read_text()
    assert "PASSED" in ran.stdout and ran.stderr == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "must be what"),
        (b'{"schema": 2}', "must be what"),
        (b'{"schema": 1}', "missing required field"),
        (b'{"schema": 1, "trials": 5}', "Expected `array`, got `int`"),
        (None, "cannot be read: No such file"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    """A file that is no results file is refused in one clear line."""
    file = tmp_path / "x.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(says)):
        read(str(file))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("violations", "detected_by_rule"), {}, "lacks 'load-test-errors'"),
        (("violations", "by_rule", "a"), 1, "lacks 'a'"),
    ],
)
def test_results_that_no_run_writes_are_refused(
    results: dict[str, Any], path: tuple[str, ...], value: object, says: str
) -> None:
    """A file whose parts have the right types and contradict each other."""
    changed = json.loads(json.dumps(results))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(UsageError, match=re.escape(says)):
        of(changed, "x.json")


def test_bad_usage_is_exit_status_2(made: Path, tmp_path: Path) -> None:
    """One line on standard error, and nothing on standard output."""
    one = str(made / "r.json")
    for arguments in (
        ("report", str(tmp_path / "none.json")),
        ("report", one, "--html", str(tmp_path / "none" / "x.html")),
        ("report", one, one, "--html", str(tmp_path / "x.html")),
        ("report", one, "--json", "-", "--csv", "-"),
        ("report", one, "--baseline", "../etc"),
        ("report", one, one, "--max-regression", "speed=3%"),
        ("report", one, "--github-summary"),
    ):
        ran = cli.blaster(*arguments, GITHUB_STEP_SUMMARY="")
        assert (ran.returncode, ran.stdout) == (2, ""), arguments
        assert ran.stderr.startswith("blaster: ") and ran.stderr.count("\n") == 1, ran.stderr


def test_control_characters_never_reach_the_terminal(made: Path, results: dict[str, Any]) -> None:
    """Text from a file cannot move the cursor, nor be taken for rich's markup."""
    changed = {**results, "messages": {"\x1b[2J": "\x1b]0;title\x07[red]x[/nonsense]"}}
    changed["scenario"] = "[bold]\x1b[31m"
    changed["funnel"] = [{"stage": "[/x]", "spans": 5, "reason": "[/y]"}]
    changed["configuration"] = {**results["configuration"], "stages": ["[/z]"], "faults": ["[/f]"]}
    (made / "evil.json").write_text(json.dumps(changed))
    ran = cli.blaster("report", str(made / "evil.json"))
    assert ran.returncode == 0 and "\x1b" not in ran.stdout and "[bold]" in ran.stdout


@given(st.lists(st.integers(0, 700 * 10**9), min_size=1, max_size=50))
def test_heat_rows_hold_exactly_what_was_recorded(values: list[int]) -> None:
    """Every duration is counted in the row whose bounds hold it, and merging adds up."""
    histogram = Histogram()
    histogram.record(np.array(values, np.int64))
    column = Column.of(1.0, histogram)
    for us in (min(600_000_000, (v + 500) // 1000) for v in values):
        assert any(row_begin_us(r) <= us < row_begin_us(r + 1) for r in column.counts)
    assert sum(column.counts.values()) == len(values)
    twice = merge_columns(column, Column(2.0, column.counts))
    found = heat_of([twice])
    assert found is not None and found.ends_s == [2.0]
    assert sum(found.counts[0][1::2]) == 2 * len(values)
    assert all(0 <= row < len(found.bounds_ms) - 1 for row in found.counts[0][::2])
    assert found.bounds_ms == sorted(found.bounds_ms)
