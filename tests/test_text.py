"""Text from outside is cleaned of control characters wherever it is shown."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.text import clean, cleaned
from tests.support import cli
from tests.support.fake_backend import Reply, fake_backend
from tests.support.http_peer import peer, response, says

EVIL = "\x1b]0;PWNED\x07\x1b[2J\x1b[31mRED\x9b31m\x00\u202e<script>alert(1)</script>|=cmd"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def message(number: int, text: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    size, head = len(text), bytes([number << 3 | 2])
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return head + bytes([size]) + text


PARTIAL = message(1, b"\x08\x01" + message(2, EVIL.encode()))
STATUS = b"\x08\x03" + message(2, EVIL.encode())


@given(st.text())
def test_clean_text_is_one_safe_line(text: str) -> None:
    """Nothing that a terminal obeys or XML forbids is left, and the rest is unchanged."""
    safe = clean(text)
    assert len(safe) == len(text) and clean(safe) == safe
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in safe)
    assert not UNSAFE.search(safe)
    ElementTree.fromstring(f"<a>{safe.replace('&', '').replace('<', '')}</a>")
    for before, after in zip(text, safe, strict=True):
        assert after in (before, " ", "\ufffd")


def test_clean_values_keep_their_shape() -> None:
    """Texts and keys within lists and dictionaries are cleaned."""
    assert cleaned({"\x1b": [1, None, {"a": "\x9b1m"}]}) == {"\ufffd": [1, None, {"a": "\ufffd1m"}]}


@pytest.mark.parametrize(
    "answer",
    [
        response("200 OK", PARTIAL),
        response("400 Bad", STATUS),
        response("503 \x1b[2J", EVIL.encode(), kind="text/html"),
    ],
    ids=["partial success", "status", "proxy's body"],
)
def test_a_peers_message_reaches_every_output_clean(answer: bytes, tmp_path: Path) -> None:
    """Console, Markdown, JUnit, HTML and JSON: a peer's words are there, its control functions
    and its markup are not."""
    files = {name: tmp_path / f"r.{name}" for name in ("markdown", "junit", "html", "json")}
    alerts = {"status": "success", "data": {"alerts": [ALERT]}}
    body = Reply(200, json.dumps(alerts))
    with peer(says(answer)) as target, fake_backend(lambda *_: body) as prometheus:
        ran = cli.blaster(
            *("run", "--transport", "http", "--endpoint", f"http://127.0.0.1:{target.port}"),
            *("--rate", "100", "--duration", "500ms", "--workers", "1", "--retry", "off"),
            *("--alerts", prometheus.url),
            *(argument for name, path in files.items() for argument in (f"--{name}", str(path))),
        )
    assert ran.returncode == 1, ran.stderr
    assert "RED" in ran.stdout and "alert OOM" in ran.stdout
    for text in (ran.stdout, ran.stderr, *(path.read_text() for path in files.values())):
        assert not UNSAFE.search(text)
    assert "<script>alert(1)" not in files["markdown"].read_text()
    ElementTree.parse(files["junit"])


ALERT = {"state": "firing", "labels": {"alertname": f"OOM{EVIL}"}, "activeAt": EVIL}


def test_the_preflights_error_is_clean() -> None:
    """A peer's words in an error, too."""
    refusal = says(response("403 No", EVIL.encode(), kind="text/plain"))
    with peer(refusal, greets=False) as target:
        ran = cli.blaster(
            *("run", "--transport", "http", "--endpoint", f"http://127.0.0.1:{target.port}"),
            *("--rate", "100", "--duration", "1s"),
        )
    assert ran.returncode == 3 and "RED" in ran.stderr
    assert not UNSAFE.search(ran.stdout + ran.stderr)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_names_of_captured_spans_are_clean(more: tuple[str, ...], tmp_path: Path) -> None:
    """What a file says of its spans is shown without its control characters."""
    file = tmp_path / "evil.json"
    span = {
        "traceId": "1".zfill(32),
        "spanId": "1".zfill(16),
        "name": EVIL,
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000000100000000",
    }
    file.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    ran = cli.blaster("templates", "inspect", str(file), *more)
    assert ran.returncode == 0 and "RED" in ran.stdout
    assert not UNSAFE.search(ran.stdout + ran.stderr)
