"""--verify betrace: from rules to detection, and every way in which it can go wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support import cli, sinks
from support.fake_backend import Reply, fake_backend
from typer.testing import CliRunner

from blaster.backends.betrace import EXPRESSIONS, NEWER, OLDER, Betrace
from blaster.backends.client import Client, parse_base
from blaster.backends.findings import Flow, Sent
from blaster.backends.verify import Verifier, VerifySettings, parse_targets
from blaster.backends.waiting import Wait
from blaster.cli import app
from blaster.engine.signals import StopSignals
from blaster.errors import UsageError
from blaster.otlp.rules import ERRORS, MISSING_AUTH, RULES, SLOW
from blaster.sink.process import EmbeddedSink


def rules_left(sink: EmbeddedSink) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", sink.api_port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/rules")
        said = json.loads(connection.getresponse().read())
        return len(said["rules"])


def funnel(read: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {stage["stage"]: (stage["spans"], stage["lost"]) for stage in read["funnel"]}


SCENARIOS = [
    ("normal", ("--rate", "2k", "--duration", "3s"), 6000, 600),
    ("medium", ("--duration", "2s"), 2000, 200),
    ("high", ("--duration", "2s"), 20_000, 1000),
    ("spike", ("--stages", "500@2s,5k@1s,500@3s"), 7500, 750),
]


@pytest.mark.parametrize(("scenario", "load", "spans", "violations"), SCENARIOS)
def test_the_scenarios_from_rules_to_detection(
    tmp_path: Path, scenario: str, load: tuple[str, ...], spans: int, violations: int
) -> None:
    """Each scenario, shortened, with nothing else on the machine: all is found, rule by rule."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", scenario, "--embedded", "--verify", "betrace", *load, "--json", str(out))
    )
    read = cli.results(out)
    assert read["spans"]["accepted"] == spans
    found = read["violations"]
    assert (found["injected"], found["expected"], found["detected"]) == (violations,) * 3
    assert found["detected_by"] == "betrace" and found["detection_rate"] == 1.0
    assert found["detected_by_rule"] == found["by_rule"] == read["sink"]["violations_by_rule"]
    assert funnel(read) == {
        "sent": (spans, 0),
        "accepted": (spans, 0),
        "ingested by BeTrace": (spans, 0),
        "detected by BeTrace": (violations, 0),
    }
    (asked,) = read["verification"]
    assert asked["dialect"] == "newer" and asked["problems"] == []
    checks = {check["name"]: check for check in read["verdict"]["checks"]}
    assert checks["spans ingested by BeTrace"]["passed"]
    if scenario != "spike":  # it is a share of what was found, and no other scenario lacks it
        assert checks["detection rate"]["passed"], ran.stdout
    assert f"{violations:,} violations" in ran.stdout


@pytest.mark.parametrize(
    ("quirks", "dialect"),
    [(("snake", "twice", "old-dialect"), "older"), (("new-dialect", "no-metrics"), "newer")],
)
def test_either_dialect_either_style(tmp_path: Path, quirks: tuple[str, ...], dialect: str) -> None:
    """A violation recorded twice counts once; the rules are there during the run, not after it."""
    out = tmp_path / "r.json"
    with sinks.started(betrace=quirks) as sink:
        ran = cli.blaster(
            *("run", "--endpoint", sink.endpoint, "--rate", "1k", "--duration", "1s", "--json"),
            *(str(out), "--verify", f"betrace=http://127.0.0.1:{sink.api_port}"),
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert rules_left(sink) == 0
    read = cli.results(out)
    assert read["violations"]["detected"] == 100
    assert read["verification"][0]["dialect"] == dialect
    assert ("ingested by BeTrace" in funnel(read)) is ("no-metrics" not in quirks)


def test_an_interrupted_run_takes_its_rules_away(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with EmbeddedSink() as sink:
        url = f"http://127.0.0.1:{sink.api_port}"
        process = cli.start(
            *("run", "--endpoint", sink.endpoint, "--duration", "60s", "--verify"),
            *(f"betrace={url}", "--json", str(out)),
        )
        with process:
            until = time.monotonic() + 30
            while sink.counts().spans == 0 and time.monotonic() < until:
                time.sleep(0.05)
            assert rules_left(sink) == 3
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        assert process.returncode == 130
        assert rules_left(sink) == 0
    assert cli.results(out)["funnel"][0]["stage"] == "sent"


def test_one_that_is_never_ready_fails_the_run_in_time(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with sinks.started(betrace=["never-ready"]) as sink:
        ran = cli.blaster(
            *("run", "--endpoint", sink.endpoint, "--duration", "1s", "--json", str(out)),
            *("--verify", f"betrace=http://127.0.0.1:{sink.api_port}", "--verify-limit", "1s"),
        )
    assert ran.returncode == 1
    assert "is not ready: neither /v1/health nor /health answered 200 within 1 s" in ran.stdout
    assert "Traceback" not in ran.stderr
    assert cli.results(out)["violations"]["detected"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--verify", "zipkin"), "--verify 'zipkin': must be NAME or NAME=URL, with one of"),
        (("--verify", "betrace=ftp://x"), "--verify betrace 'ftp://x': must be http://HOST:PORT"),
        (("--verify", "betrace=http://x:0"), "--verify betrace 'http://x:0': must be http://"),
        (("--verify", "betrace", "--verify", "betrace"), "--verify 'betrace': is given twice"),
        (("--verify-header", "a=b"), "--verify-header: needs --verify"),
        (("--verify", "betrace", "--verify-header", "a"), "--verify-header: must be NAME=VALUE"),
        (("--verify-limit", "never"), "--verify-limit 'never': must be a time above 0"),
    ],
)
def test_wrong_options(options: tuple[str, ...], said: str) -> None:
    """Refused before anything is started."""
    ran = CliRunner().invoke(app, ["run", "--duration", "1s", *options], obj=StopSignals())
    assert isinstance(ran.exception, UsageError) and str(ran.exception).startswith(said)


# ---- against servers that answer as recorded ----


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def sent_of(traces: int = 6) -> Sent:
    """Each rule is broken by so many traces; 100 spans were accepted."""
    violating = {
        rule: {trace_id(1000 * place + n + 1) for n in range(traces)}
        for place, rule in enumerate(RULES)
    }
    counts = {rule: len(traces) for rule, traces in violating.items()}
    now = time.time()
    return Sent(100, 0, now - 1, now, counts, violating, ("blaster",), [])


class Recorded:
    """BeTrace as it was seen to answer; tests bend it."""

    def __init__(self, sent: Sent, *, snake: bool = False) -> None:
        self.rules: dict[str, dict[str, Any]] = {}
        self.taken: set[str] = set()
        self.sent, self.snake = sent, snake
        self.ingested: int | None = 0
        self.dialects = (NEWER, OLDER)
        self.violations = {rule: [*traces] for rule, traces in (sent.violating or {}).items()}

    def __call__(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path == "/v1/health":
            return {"status": "SERVING"}
        if path == "/metrics":
            counter = f"betrace_spans_ingested_total {self.ingested}\n"
            return None if self.ingested is None else counter
        if path == "/v1/rules":
            return self.create(body) if method == "POST" else {"rules": [*self.rules.values()]}
        if method == "DELETE":
            name = path.rpartition("/")[2]
            known = name in self.rules or name in self.taken
            self.rules.pop(name, None)
            self.taken.discard(name)
            return Reply(200 if known else 404, {})
        if path == "/v1/violations":
            return self.list(query)
        return None

    def create(self, rule: dict[str, Any]) -> Any:
        name = rule["name"]
        if name in self.rules or name in self.taken:
            return Reply(409, {"message": "already exists"})
        if rule["expression"] not in [EXPRESSIONS[dialect][name] for dialect in self.dialects]:
            self.taken.add(name)
            return Reply(400, {"message": "failed to compile rule"})
        self.rules[name] = rule
        return rule

    def list(self, query: dict[str, str]) -> Any:
        rule, trace = ("rule_id", "trace_id") if self.snake else ("ruleId", "traceId")
        name, limit = query["rule_id"], int(query.get("limit", 100))
        found = [{rule: name, trace: t.hex()} for t in self.violations[name]][:limit]
        return {"violations": found, "total_count" if self.snake else "totalCount": len(found)}


def verify(url: str, sent: Sent, limit_s: float = 1.0, timeout_s: float = 0.5) -> tuple[Any, Any]:
    """The adapter's Verification, and its last stage; with its rules made and removed."""
    betrace = Betrace(Client(parse_base("--verify", url, 80), timeout_s=timeout_s))
    flow = Flow(sent.accepted, sent.accepted)
    wait = Wait(limit_s, lambda: False)
    betrace.prepare(wait)
    wait.accepted_at = time.monotonic()
    betrace.verify(sent, flow, wait)
    betrace.close()
    return betrace.verification, flow.stages[-1]


@pytest.mark.parametrize("snake", [False, True])
def test_distinct_traces_of_this_run_count(snake: bool) -> None:
    """Twice is once, another run's are noted and not counted, and a list as long as the limit is
    asked for again with a larger one."""
    sent = sent_of(700)
    recorded = Recorded(sent, snake=snake)
    recorded.ingested = None
    recorded.violations[SLOW] = 4 * recorded.violations[SLOW] + [trace_id(10**9)]
    with fake_backend(recorded) as fake:
        said, stage = verify(fake.url, sent)
        limits = [int(q["limit"]) for _, p, q, _ in fake.asked if p == "/v1/violations"]
    assert said.problems == [] and stage.spans == 2100 and stage.lost == 0
    assert said.notes == [f"{SLOW}: 1 traces are reported that do not violate it in this run"]
    assert limits == [2100, 8400, 2100, 2100]
    assert recorded.rules == {} and recorded.taken == set()


def test_what_comes_late_is_waited_for() -> None:
    """Polled until it is there; the time until then is told."""
    sent = sent_of()
    recorded = Recorded(sent)
    recorded.ingested = None
    late = recorded.violations[ERRORS]
    recorded.violations[ERRORS] = []
    shown = time.monotonic() + 0.6

    def answer(*asked: Any) -> Any:
        if time.monotonic() > shown:
            recorded.violations[ERRORS] = late
        return recorded(*asked)

    with fake_backend(answer) as fake:
        said, stage = verify(fake.url, sent, limit_s=20.0)
    assert stage.spans == 18 and said.time_to_visible_s > 0.2


def test_rules_left_by_others_and_the_older_dialect() -> None:
    """A name that is taken is freed; where the newer dialect is refused, the older is tried, and
    what the refusal left is removed."""
    sent = sent_of()
    recorded = Recorded(sent)
    recorded.dialects = (OLDER,)
    recorded.ingested = 100
    recorded.rules[MISSING_AUTH] = {"name": MISSING_AUTH, "enabled": True}
    recorded.rules["mine"] = {"name": "mine", "enabled": True}
    with fake_backend(recorded) as fake:
        said, stage = verify(fake.url, sent)
    assert said.dialect == OLDER and stage.spans == 18
    assert list(recorded.rules) == ["mine"]
    assert said.rules == sorted([*RULES, "mine"])


def bent(sent: Sent, how: str) -> Recorded:
    recorded = Recorded(sent)
    recorded.violations[ERRORS] = recorded.violations[ERRORS][:2]
    if how == "unmatched":
        recorded.violations[ERRORS] = []
    return recorded


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("gone", "no rules: load-test-errors not among the 2 that are listed"),
        ("disabled", "rules disabled: load-test-errors"),
        ("nothing", "nothing ingested: are the spans forwarded to BeTrace?"),
        ("part", "only 60 of 100 spans ingested"),
        ("unmatched", "expression unmatched in the newer dialect: load-test-errors; it wants"),
        ("slow", "not reported within the time waited"),
    ],
)
def test_missing_detections_are_explained(how: str, reason: str) -> None:
    sent = sent_of()
    recorded = bent(sent, how)

    def answer(method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path == "/v1/violations":
            recorded.ingested = {"nothing": 0, "part": 60}.get(how, 100)
            if how == "gone":
                recorded.rules.pop(ERRORS, None)
            if how == "disabled":
                recorded.rules[ERRORS]["enabled"] = False
        elif path == "/metrics" and how not in ("nothing", "part") and recorded.rules:
            recorded.ingested = 100
        return recorded(method, path, query, body)

    with fake_backend(answer) as fake:
        said, stage = verify(fake.url, sent, limit_s=0.3)
    assert stage.reason.startswith(reason)
    assert stage.lost == (6 if how == "unmatched" else 4)
    assert said.problems == []


FAULTS: dict[str, Any] = {
    "404": None,
    "500": Reply(500, "<html>\x1b[31moops</html>"),
    "not JSON": Reply(200, b"<html>"),
    "truncated": Reply(200, b'{"rules": [{"na', promised=100),
    "half a JSON": Reply(200, b'{"violations": [{"ruleId"'),
    "a list of nonsense": Reply(200, {"violations": "many", "rules": 7}),
    "silent": Reply(silent=True),
    "a byte at a time": Reply(200, b"{" * 10_000, drip_s=0.1),
    "deep": Reply(200, b"[" * 200_000),
}


@pytest.mark.parametrize("where", ["/v1/health", "/v1/rules", "/v1/violations", "/metrics", ""])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_are_one_line_in_the_verdict(fault: str, where: str) -> None:
    """Wherever it goes wrong and however: told in a line, and never raised."""
    sent = sent_of()
    recorded = Recorded(sent)
    recorded.ingested = 100

    def answer(method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path.startswith(where) and method != "DELETE":
            return FAULTS[fault]
        return recorded(method, path, query, body)

    with fake_backend(answer) as fake:
        said, stage = verify(fake.url, sent, limit_s=0.3, timeout_s=0.2)
    if where == "/metrics" or (where == "/v1/health" and fault not in ("404",)):
        pass  # may be absent; /health is tried, too, and a 200 is a 200
    else:
        assert said.problems or stage.spans == 0 or stage.spans is None
    for problem in said.problems:
        assert "\n" not in problem and "Traceback" not in problem and problem.isprintable()
        assert len(problem) < 500
    assert recorded.rules == {}


def test_nobody_there() -> None:
    said, stage = verify("http://127.0.0.1:9", sent_of(), limit_s=0.3)
    assert "is not ready" in said.problems[0] and stage.spans is None


def test_headers_go_with_every_question() -> None:
    sent = sent_of()
    with fake_backend(Recorded(sent)) as fake:
        targets = parse_targets([f"betrace={fake.url}/prefix"])
        with Verifier(VerifySettings(targets, (("x-scope", "me"),), limit_s=0.2)) as it:
            it.prepare()
        assert fake.asked and all(path.startswith("/prefix/") for _, path, _, _ in fake.asked)
        assert {headers["x-scope"] for headers in fake.headers} == {"me"}
    with pytest.raises(UsageError):
        parse_targets(["betrace=http://user@x"])
