"""Comparisons: the statistics against published tables, the judgement, baselines, exit status."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import cli

from blaster.report.document import of
from blaster.verdict.comparison import (
    BETTER,
    SAME,
    UNSURE,
    WORSE,
    Found,
    compare,
    t_quantile,
    t_tails,
    welch,
)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (120, 1.980), (1e6, 1.960)],
)
def test_students_t_is_that_of_the_tables(freedom: float, quantile: float) -> None:
    """Two-sided 5 % quantiles as in any table (e.g. NIST/SEMATECH e-Handbook, 1.3.6.7.2)."""
    assert t_quantile(0.05, freedom) == pytest.approx(quantile, abs=5e-4)
    assert t_tails(quantile, freedom) == pytest.approx(0.05, abs=2e-4)


def test_welch_is_that_of_a_worked_example() -> None:
    """Hand-checked: means 20.82 and 22.99, t = -2.455, ν = 24.99, p = 0.0213 (the well-known
    second example of Welch's test)."""
    a = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    b = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]
    low, high, p = welch(a, b)
    assert p == pytest.approx(0.021378, abs=1e-5)
    assert low < 22.9866667 - 20.82 < high
    assert welch([1.0, 1.0], [1.0, 1.0]) == (0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One short run."""
    path = tmp_path_factory.mktemp("comparison") / "r.json"
    ran = cli.blaster("run", "--embedded", "--duration", "1s", "--quiet", "--json", str(path))
    assert ran.returncode == 0, ran.stderr
    return cli.results(path)


def with_p99(results: dict[str, Any], p99: float, lost: int = 0) -> dict[str, Any]:
    latency = results["latency_ms"]
    response = {**latency["response"], "p99": p99}
    spans = {**results["spans"]}
    spans.update(accepted=spans["accepted"] - lost, failed=lost)
    return {**results, "latency_ms": {**latency, "response": response}, "spans": spans}


@pytest.mark.parametrize(
    ("before", "after", "judgement"),
    [
        ([10.0], [10.9], SAME),
        ([10.0], [11.2], WORSE),
        ([10.0], [8.0], BETTER),
        ([0.2], [0.29], SAME),  # within the slack
        ([10.0, 10.1, 9.9], [12.0, 12.1, 11.9], WORSE),
        ([10.0, 15.0, 5.0], [12.0, 18.0, 7.0], UNSURE),
        ([10.0, 10.1, 9.9], [10.5, 10.6, 10.4], SAME),  # sure, and too little to matter
    ],
)
def test_judgement(
    results: dict[str, Any], before: list[float], after: list[float], judgement: str
) -> None:
    """More than the threshold counts, and where there are repeats only what is sure as well."""

    def side(values: list[float]) -> list[Found]:
        return [of(with_p99(results, value), "x").found for value in values]

    found = compare(("a", side(before)), ("b", side(after)))
    by_name = {d.figure: d for d in found.differences}
    assert by_name["latency_ms.response.p99"].judgement == judgement
    assert found.regressed is (judgement == WORSE)
    assert by_name["lost_share"].judgement == SAME


def test_any_loss_is_a_regression_where_there_was_none(results: dict[str, Any]) -> None:
    """A figure that was 0 has no share to be worse by: one lost span is enough."""
    before, after = of(results, "a").found, of(with_p99(results, 1.0, lost=1), "b").found
    found = {d.figure: d for d in compare(("a", [before]), ("b", [after])).differences}
    assert found["lost_share"].judgement == WORSE and found["lost_share"].change is None


def test_exit_status_and_threshold(results: dict[str, Any], tmp_path: Path) -> None:
    """A regression is exit status 1, in the table and in JSON; the threshold is the user's."""
    p99 = 50.0
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(with_p99(results, p99)))
    b.write_text(json.dumps(with_p99(results, 1.2 * p99)))
    out = tmp_path / "c.json"
    ran = cli.blaster("report", str(a), str(b), "--json", str(out))
    assert ran.returncode == 1 and "+20.0%" in ran.stdout
    assert "REGRESSED: latency_ms.response.p99" in ran.stdout
    assert json.loads(out.read_text())["regressed"] is True
    assert cli.blaster("report", str(b), str(a)).returncode == 0
    for limit in ("25%", "latency_ms.response.p99=25%"):
        ran = cli.blaster("report", str(a), str(b), "--max-regression", limit, "-q")
        assert (ran.returncode, ran.stdout) == (0, "")


def test_baselines_are_kept_by_name(results: dict[str, Any], tmp_path: Path) -> None:
    """Repeats are kept, compared with, and not replaced by a regression."""
    runs, home = tmp_path / "runs", str(tmp_path / "home")
    runs.mkdir()
    for number in range(3):
        (runs / f"{number}.json").write_text(json.dumps(with_p99(results, 50 + number / 10)))
    kept = cli.blaster("report", str(runs), "--save-baseline", "main", XDG_DATA_HOME=home)
    assert kept.returncode == 0 and "saved as" in kept.stderr and kept.stdout == ""
    folder = tmp_path / "home" / "blaster" / "baselines" / "main"
    assert len(list(folder.iterdir())) == 3
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(with_p99(results, 90)))
    again = ("report", str(slow), "--baseline", "main", "--save-baseline", "main")
    ran = cli.blaster(*again, XDG_DATA_HOME=home)
    assert (
        ran.returncode == 1 and "not saved" in ran.stderr and "slow.json against main" in ran.stdout
    )
    assert len(list(folder.iterdir())) == 3
    slow.write_text(json.dumps(with_p99(results, 50)))
    assert cli.blaster(*again, XDG_DATA_HOME=home).returncode == 0
    assert len(list(folder.iterdir())) == 1
    missing = cli.blaster("report", str(slow), "--baseline", "mian", XDG_DATA_HOME=home)
    assert missing.returncode == 2 and "there are main" in missing.stderr


def test_what_was_not_alike_is_said(results: dict[str, Any], tmp_path: Path) -> None:
    """Runs of different configurations are compared, with a warning; kinds are not mixed."""
    other = {**results, "configuration": {**results["configuration"], "workers": 9}}
    a, b, c = (tmp_path / f"{name}.json" for name in "abc")
    a.write_text(json.dumps(results))
    b.write_text(json.dumps(other))
    c.write_text('{"schema": 1, "trials": []}')
    assert "not alike: workers: 1 before, 9 after" in cli.blaster("report", str(a), str(b)).stdout
    ran = cli.blaster("report", str(a), str(c))
    assert ran.returncode == 2 and "cannot be compared" in ran.stderr
