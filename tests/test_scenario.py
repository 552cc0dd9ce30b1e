"""Scenarios: the presets' figures, every wrong input's one line, and what overrides what."""

import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import blaster.scenario
from blaster.errors import UsageError
from blaster.scenario.loading import describe, load, names, parse
from blaster.scenario.overrides import resolve
from blaster.scenario.scenario import Criteria, Scenario, Stage, Workload, parse_stages

S = 10**9
RATE = "must be a whole number of spans per second from 1 to 1G, such as 100, 10k or 1.5M, or max"
DURATION = "must be a time above 0 and up to 366d, such as 60s, 2m, 1h30m, 500ms or 60"
SHARE = "must be a share from 0 to 1, such as 0.1 or 10%"
RAMP = "a ramp must go from one whole number to another, not both 0, such as 100..10k"
STAGE = "must be RATE@TIME or FROM..TO@TIME, such as 100..10k@2m"

OK = 'stages = [{ rate = 1, duration = "1s" }]\n'


def stage(seconds: float, start: int | None, end: int | None = -1) -> Stage:
    end = start if end == -1 else end
    return Stage(duration_ns=int(seconds * S), start_rate=start, end_rate=end)


# --- the presets ---


@pytest.mark.parametrize(
    ("name", "stages", "violation_rate", "criteria"),
    [
        (
            "normal",
            [stage(60, 100)],
            Fraction(1, 10),
            Criteria(detection_rate_min=0.9, target_cpu_percent_max=5, target_rss_bytes_max=10**8),
        ),
        (
            "medium",
            [stage(300, 1000)],
            Fraction(1, 10),
            Criteria(
                detection_rate_min=0.9, target_cpu_percent_max=20, target_rss_bytes_max=2 * 10**8
            ),
        ),
        (
            "high",
            [stage(600, 10_000)],
            Fraction(1, 20),
            Criteria(
                detection_rate_min=0.85, target_cpu_percent_max=70, target_rss_bytes_max=5 * 10**8
            ),
        ),
        (
            "spike",
            [stage(60, 100), stage(30, 10_000), stage(60, 100)],
            Fraction(1, 10),
            Criteria(no_errors=True, none_dropped=True, cpu_recovers=True),
        ),
        (
            "soak",
            [stage(86_400, 1000)],
            Fraction(1, 10),
            Criteria(detection_rate_min=0.9, no_errors=True, no_leak=True),
        ),
    ],
)
def test_preset(
    name: str, stages: list[Stage], violation_rate: Fraction, criteria: Criteria
) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.description
    assert scenario.stages == tuple(stages)
    assert scenario.workload == Workload(violation_rate=violation_rate)
    assert scenario.criteria == criteria


def test_names_are_the_files() -> None:
    folder = Path(blaster.scenario.__file__).parent / "presets"
    assert sorted(names()) == sorted(path.stem for path in folder.glob("*.toml"))
    assert [row[0] for row in describe()] == names()
    assert describe()[3][2] == ("100 spans/s for 1m, 10,000 spans/s for 30s, 100 spans/s for 1m")


def test_rates_and_duration() -> None:
    spike = load("spike")
    assert (spike.duration_ns, spike.peak_rate, spike.low_rate) == (150 * S, 10_000, 100)
    fastest = Scenario(name="x", stages=(stage(1, None),))
    assert (fastest.is_max, fastest.peak_rate, fastest.low_rate) == (True, None, None)


# --- files ---


def test_a_file_with_everything(tmp_path: Path) -> None:
    path = tmp_path / "checkout.toml"
    path.write_text(
        """
        description = "Black Friday"
        seed = 7
        batch = 500
        stages = [
            { rate = "1k", duration = 60 },
            { from = 0, to = "10k", duration = "2m" },
            { rate = 100, duration = 0.5 },
        ]
        [workload]
        name = "flat"
        violation_rate = 0.1234567
        spans_per_trace = 8
        [criteria]
        detection_rate_min = "95%"
        target_cpu_percent_max = 150.5
        target_rss_max = "1GiB"
        no_errors = true
        none_dropped = false
        cpu_recovers = true
        """
    )
    assert load(str(path)) == Scenario(
        name="checkout",
        description="Black Friday",
        seed=7,
        batch=500,
        stages=(stage(60, 1000), stage(120, 0, 10_000), stage(0.5, 100)),
        workload=Workload(violation_rate=Fraction(1_234_567, 10**7), spans_per_trace=8),
        criteria=Criteria(
            detection_rate_min=0.95,
            target_cpu_percent_max=150.5,
            target_rss_bytes_max=1 << 30,
            no_errors=True,
            cpu_recovers=True,
        ),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'f: stages is missing: such as stages = [{ rate = 100, duration = "60s" }]'),
        (
            'stage = [{ rate = 1, duration = "1s" }]',
            "f: stage: unknown key; known: name, description, seed, batch, stages; "
            "did you mean stages?",
        ),
        (
            OK + "xyz = 1",
            "f: xyz: unknown key; known: "
            "name, description, seed, batch, stages, arrivals, burst, warmup, thresholds, "
            "abort_on, workload, criteria",
        ),
        (
            OK + "[workload]\nviolation_rat = 0.1",
            "f: workload.violation_rat: unknown key; known: "
            "name, layout, violation_rate, spans_per_trace; did you mean violation_rate?",
        ),
        (
            'stages = [{ rte = 1, duration = "1s" }]',
            "f: stages[0].rte: unknown key; known: rate, from, to, period, width, duration; "
            "did you mean rate?",
        ),
        (OK + '"a\\nb" = 1\n[criteria]', None),
        (
            "stages = 3",
            'f: stages = 3: must be tables in an array: [{ rate = 100, duration = "60s" }]',
        ),
        (
            "stages = []",
            'f: stages = []: must be tables in an array: [{ rate = 100, duration = "60s" }]',
        ),
        ('stages = [{ rate = 0, duration = "1s" }]', f"f: stages[0].rate = 0: {RATE}"),
        ('stages = [{ rate = -5, duration = "1s" }]', f"f: stages[0].rate = -5: {RATE}"),
        ('stages = [{ rate = 1.5, duration = "1s" }]', f"f: stages[0].rate = 1.5: {RATE}"),
        ('stages = [{ rate = nan, duration = "1s" }]', f"f: stages[0].rate = nan: {RATE}"),
        ('stages = [{ rate = true, duration = "1s" }]', f"f: stages[0].rate = true: {RATE}"),
        ('stages = [{ rate = [1], duration = "1s" }]', f"f: stages[0].rate = [1]: {RATE}"),
        ('stages = [{ rate = "fast", duration = "1s" }]', f"f: stages[0].rate = 'fast': {RATE}"),
        (
            'stages = [{ rate = 1, duration = "1s" }, { rate = 1, duration = "0s" }]',
            f"f: stages[1].duration = '0s': {DURATION}",
        ),
        ("stages = [{ rate = 1, duration = -1 }]", f"f: stages[0].duration = -1: {DURATION}"),
        ("stages = [{ rate = 1 }]", 'f: stages[0]: duration is missing: such as duration = "60s"'),
        ('stages = [{ duration = "1s" }]', "f: stages[0]: must have either rate, or from and to"),
        (
            'stages = [{ rate = 1, to = 5, duration = "1s" }]',
            "f: stages[0]: must have either rate, or from and to",
        ),
        (
            'stages = [{ from = 1, duration = "1s" }]',
            "f: stages[0]: must have from and to: to is missing",
        ),
        (
            'stages = [{ from = "max", to = 1, duration = "1s" }]',
            "f: stages[0].from = 'max': "
            "must be a whole number of spans per second from 0 to 1G, such as 10k",
        ),
        (
            'stages = [{ from = 0, to = 0, duration = "1s" }]',
            "f: stages[0]: a stage must have a rate above 0 at its start or its end",
        ),
        (
            'stages = [{ rate = 1, duration = "1s" }, { rate = "max", duration = "1s" }]',
            "f: max must be the only stage: give the others' rates as numbers",
        ),
        (OK + "batch = 0", "f: batch = 0: must be a whole number from 1 to 1,000,000"),
        (OK + "name = 3", "f: name = 3: must be text in one line"),
        (OK + "name = 3.5", "f: name = 3.5: must be text in one line"),
        (OK + 'description = "a\\nb"', "f: description = 'a\\nb': must be text in one line"),
        (OK + "workload = 3", "f: workload = 3: must be a table: [workload]"),
        (
            OK + "[workload]\nviolation_rate = 1.1",
            f"f: workload.violation_rate = 1.1: {SHARE}",
        ),
        (OK + "[workload]\nviolation_rate = nan", f"f: workload.violation_rate = nan: {SHARE}"),
        (
            OK + "[workload]\nviolation_rate = 1e-999999999",
            f"f: workload.violation_rate = 1e-999999999: {SHARE}",
        ),
        (
            OK + "[workload]\nspans_per_trace = 0",
            "f: workload.spans_per_trace = 0: must be a whole number from 1 to 10,000",
        ),
        (
            OK + "[criteria]\ntarget_cpu_percent_max = 0",
            "f: criteria.target_cpu_percent_max = 0: "
            "must be percent of one core, above 0, such as 70",
        ),
        (
            OK + '[criteria]\ntarget_rss_max = "lots"',
            "f: criteria.target_rss_max = 'lots': "
            "must be a whole number of bytes above 0, such as 512, 64kB, 100MB or 4MiB",
        ),
        (
            OK + "[criteria]\nno_errors = 1",
            "f: criteria.no_errors = 1: must be true or false",
        ),
        (
            OK + "[criteria]\ncpu_recovers = true",
            "f: cpu_recovers needs a stage between the first and the last with a higher rate",
        ),
        ("a = " + "[" * 5000, None),
        ("a = " + "9" * 5000, None),
    ],
)
def test_a_wrong_file_is_told_in_one_line(text: str, message: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, "f")
    assert str(caught.value).isprintable()
    if message is None:
        assert str(caught.value).startswith("f:")
    else:
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb =", 2), ("a = 1\na = 2", 2), ("a = 3\n[b\n", 2), ("a = [\n\n", 1), ("\x00", 1)],
)
def test_what_is_not_toml_is_told_with_its_line(text: str, line: int) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, "f")
    assert re.fullmatch(f"f:{line}: not TOML: [^\n]+", str(caught.value))
    assert "(at " not in str(caught.value)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(UsageError) as caught:
        parse(f'stages = "{"x" * 5000}"', "f")
    assert len(str(caught.value)) < 200


def test_what_is_not_a_scenario_file(tmp_path: Path) -> None:
    def message(name: str) -> str:
        with pytest.raises(UsageError) as caught:
            load(name)
        return str(caught.value)

    known = "must be normal, medium, high, spike, soak or a TOML file"
    assert message("hihg") == f"scenario 'hihg': {known}; did you mean high?"
    assert message("zzz") == f"scenario 'zzz': {known}"
    assert message("") == f"scenario '': {known}"
    assert message("a\0b").isprintable()
    assert message("/a\0b.toml").endswith(": cannot be read: not a file name")
    missing = str(tmp_path / "no.toml")
    assert message(missing) == f"{missing}: cannot be read: No such file or directory"
    assert message(str(tmp_path)) == f"{tmp_path}: not a file"
    os.mkfifo(tmp_path / "pipe.toml")
    assert message(str(tmp_path / "pipe.toml")) == f"{tmp_path}/pipe.toml: not a file"
    path = tmp_path / "x.toml"
    path.write_bytes(b"#" * (1 << 20))
    assert "stages is missing" in message(str(path))
    path.write_bytes(b"#" * ((1 << 20) + 1))
    assert message(str(path)) == f"{path}: must be at most 1 MiB"
    path.write_bytes(b"a = 1\nb = '\xff'")
    assert message(str(path)) == f"{path}:2: not TOML: not UTF-8 text"


@given(st.text())
def test_any_text_is_a_scenario_or_one_line(text: str) -> None:
    """Any text is a scenario or refused with a UsageError of one line."""
    message = ""
    try:
        parse(text, "f")
    except UsageError as error:
        message = str(error)
    assert message.isprintable()


# --- stages as text ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100@60s", [stage(60, 100)]),
        ("100@60s,10k@30s", [stage(60, 100), stage(30, 10_000)]),
        (" 100 @ 60s , 10k@30 ", [stage(60, 100), stage(30, 10_000)]),
        ("100..10k@2m", [stage(120, 100, 10_000)]),
        ("0..5@1s,5..0@1s", [stage(1, 0, 5), stage(1, 5, 0)]),
        ("max@1s", [stage(1, None)]),
    ],
)
def test_stages(text: str, expected: list[Stage]) -> None:
    assert parse_stages(text) == tuple(expected)


WRONG_STAGES = [
    ("", "must be stages RATE@TIME or FROM..TO@TIME, such as 100@60s,100..10k@2m"),
    ("100@60s,,1@1s", f"'' {STAGE}"),
    ("100@60s,", f"'' {STAGE}"),
    ("100", f"'100' {STAGE}"),
    ("1@1s,@1s", f"'@1s' {STAGE}"),
    ("1@1s,5@", f"'5@' {STAGE}"),
    ("1@1s@1s", f"'1@1s@1s' {STAGE}"),
    ("1@1s,0@1s", f"'0@1s': {RATE}"),
    ("1@1s,x@1s", f"'x@1s': {RATE}"),
    ("1@1s,1@x", f"'1@x': {DURATION}"),
    ("0..0@1s", f"'0..0@1s': {RAMP}"),
    ("1..max@1s", f"'1..max@1s': {RAMP}"),
    ("1..2..3@1s", f"'1..2..3@1s': {RAMP}"),
    ("1@1s,max@1s", "'max@1s': max must be the only stage"),
    (",".join(["1@1s"] * 1001), "there must be at most 1,000 stages, not 1,001"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_STAGES)
def test_wrong_stages_name_the_piece(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        parse_stages(text)
    assert str(caught.value) == message


# --- structs by themselves ---


def test_what_cannot_be_a_stage_or_a_scenario() -> None:
    for wrong in [(0, 1, 1), (1, -1, 1), (1, 0, 0), (1, None, 1), (1, 1, None), (1, 1, 10**9 + 1)]:
        with pytest.raises(ValueError, match=r"stage|rate|ramp"):
            Stage(duration_ns=wrong[0], start_rate=wrong[1], end_rate=wrong[2])
    wrong_changes: list[dict[str, Any]] = [{"stages": ()}, {"batch": 0}, {"seed": -1}]
    for changes in wrong_changes:
        with pytest.raises(ValueError, match="must"):
            replace(load("normal"), **changes)
    with pytest.raises(ValueError, match="violation_rate"):
        Workload(violation_rate=Fraction(11, 10))
    with pytest.raises(ValueError, match="spans_per_trace"):
        Workload(spans_per_trace=0)


# --- overrides ---


def changed(
    name: str = "normal",
    *,
    rate: str | None = None,
    duration: str | None = None,
    violation_rate: str | None = None,
    stages: str | None = None,
    **environ: str,
) -> Scenario:
    return resolve(
        load(name),
        rate=rate,
        duration=duration,
        violation_rate=violation_rate,
        stages=stages,
        environ=environ,
    )


def test_nothing_given_changes_nothing() -> None:
    for name in names():
        assert changed(name) == load(name)
        assert changed(name, SPANS_PER_SECOND="", DURATION_SECONDS="") == load(name)


def test_option_outranks_environment_outranks_scenario() -> None:
    assert changed(SPANS_PER_SECOND="5").stages == (stage(60, 5),)
    assert changed(rate="7", SPANS_PER_SECOND="5").stages == (stage(60, 7),)
    assert changed(DURATION_SECONDS="5").stages == (stage(5, 100),)
    assert changed(duration="7s", DURATION_SECONDS="5").stages == (stage(7, 100),)
    assert changed(VIOLATION_RATE="0.2").workload.violation_rate == Fraction(1, 5)
    both = changed(violation_rate="0", VIOLATION_RATE="0.2")
    assert both.workload.violation_rate == 0
    # What is outranked is not even read.
    assert changed(rate="7", SPANS_PER_SECOND="x").stages == (stage(60, 7),)


def test_rate_makes_one_steady_stage() -> None:
    assert changed("spike", rate="10").stages == (stage(150, 10),)
    assert changed("spike", rate="max").stages == (stage(150, None),)
    assert changed("spike", rate="10", duration="9s").stages == (stage(9, 10),)
    assert changed("spike", rate="10", DURATION_SECONDS="9").stages == (stage(9, 10),)
    assert changed("spike", duration="9s", SPANS_PER_SECOND="10").stages == (stage(9, 10),)


def test_stages_outrank_the_variables() -> None:
    scenario = changed(stages="1@1s,2@1s", SPANS_PER_SECOND="5", DURATION_SECONDS="x")
    assert scenario.stages == (stage(1, 1), stage(1, 2))


def test_recovery_is_asked_only_where_there_is_a_peak() -> None:
    assert not changed("spike", rate="10").criteria.cpu_recovers
    assert not changed("spike", stages="1@1s,5@1s").criteria.cpu_recovers
    assert not changed("spike", stages="5@1s,1@1s,5@1s").criteria.cpu_recovers
    assert changed("spike", stages="1@1s,5@1s,1@1s").criteria.cpu_recovers
    assert changed("spike", stages="1@1s,1..5@1s,5..1@1s,1@1s").criteria.cpu_recovers
    assert changed("spike", rate="10").criteria.none_dropped


def test_a_ramp_is_stretched() -> None:
    ramp = load("normal").with_overrides(stages=[stage(1, 1, 9)])
    assert ramp.with_overrides(duration_ns=5 * S).stages == (stage(5, 1, 9),)


def test_the_other_overrides() -> None:
    scenario = load("normal").with_overrides(spans_per_trace=8, batch=100, seed=3)
    assert (scenario.workload.spans_per_trace, scenario.batch, scenario.seed) == (8, 100, 3)
    assert scenario.workload.violation_rate == Fraction(1, 10)
    with pytest.raises(ValueError, match="stages already say"):
        scenario.with_overrides(stages=[stage(1, 1)], rate=None)
    with pytest.raises(ValueError, match="spike has 3 stages"):
        load("spike").with_overrides(duration_ns=S)


SPIKE = "scenario spike has 3 stages: give --rate too for one steady stage, or --stages"


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"rate": "-5"}, f"--rate '-5': {RATE}"),
        ({"rate": "0"}, f"--rate '0': {RATE}"),
        ({"rate": "nan"}, f"--rate 'nan': {RATE}"),
        ({"rate": ""}, f"--rate '': {RATE}"),
        ({"SPANS_PER_SECOND": "ten"}, f"SPANS_PER_SECOND 'ten': {RATE}"),
        ({"duration": "0"}, f"--duration '0': {DURATION}"),
        ({"duration": "-1s"}, f"--duration '-1s': {DURATION}"),
        ({"DURATION_SECONDS": "soon"}, f"DURATION_SECONDS 'soon': {DURATION}"),
        ({"violation_rate": "1.1"}, f"--violation-rate '1.1': {SHARE}"),
        ({"violation_rate": "nan"}, f"--violation-rate 'nan': {SHARE}"),
        ({"VIOLATION_RATE": "-0.1"}, f"VIOLATION_RATE '-0.1': {SHARE}"),
        ({"stages": "1@1s,x@1s"}, f"--stages '1@1s,x@1s': 'x@1s': {RATE}"),
        (
            {"stages": "1@1s", "rate": "5"},
            "--rate '5': cannot be used with --stages, which sets rates and durations itself",
        ),
        (
            {"stages": "1@1s", "duration": "5s"},
            "--duration '5s': cannot be used with --stages, which sets rates and durations itself",
        ),
        ({"name": "spike", "duration": "5s"}, f"--duration '5s': {SPIKE}"),
        ({"name": "spike", "DURATION_SECONDS": "5"}, f"DURATION_SECONDS '5': {SPIKE}"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(given_: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        changed(**given_)
    assert str(caught.value) == message
