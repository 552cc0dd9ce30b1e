"""The values of headers are seen by the peer, and by nobody else."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import cli, http_peer

VALUE = "s3cr3t-t0ken"


def tells(connection: socket.socket) -> bool:
    """Refuses a request, and repeats the secret in the refusal."""
    said = f"no such token: Bearer {VALUE}, nor {VALUE}".encode()
    connection.sendall(http_peer.response("403 Forbidden", said, kind="text/plain"))
    return True


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets a process change its arguments"
)
@pytest.mark.parametrize("source", ["option", "variable"])
def test_nobody_else_sees_the_values(tmp_path: Path, source: str) -> None:
    """Neither the command line as others see it, nor the progress, the results and the reports of
    a run hold the value, though the peer says it in every answer."""
    files = {name: tmp_path / f"r.{name}" for name in ("json", "markdown", "html")}
    outputs = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    with http_peer.peer(tells) as peer:
        command = [
            *(*cli.COMMAND, "run", "--transport", "http", "--retry", "off", "--rate", "200"),
            *("--endpoint", f"http://127.0.0.1:{peer.port}", "--duration", "2s", *outputs),
        ]
        more = {}
        if source == "option":
            command += ["--header", f"Authorization=Bearer {VALUE}", f"--header=x-key={VALUE}"]
            command += ["--scrape", "http://127.0.0.1:1/m", "--verify-header", f"x-who={VALUE}"]
        else:
            more["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization=Bearer%20{VALUE},x-key={VALUE}"
        process = psutil.Popen(
            command, env=cli.environment(**more), stdout=-1, stderr=-1, stdin=-3, text=True
        )
        until = time.monotonic() + 60
        while not peer.bodies and time.monotonic() < until:
            time.sleep(0.05)
        everyone = (process, *process.children(recursive=True))
        shown = [p.cmdline() for p in everyone]
        assert VALUE not in str([p.environ() for p in everyone])
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert len(shown) >= 2 and all("run" in line for line in shown)
    for text in (str(shown), output, errors, *(path.read_text() for path in files.values())):
        assert VALUE not in text and "Bearer" not in text
    read = cli.results(files["json"])
    assert read["requests"]["by_status"].keys() == {"HTTP_403"}
    assert read["messages"] == {"HTTP_403": "no such token: …, nor …"}
    heads = peer.heads[-1].decode().lower()
    assert f"authorization: bearer {VALUE}\r\n" in heads and f"x-key: {VALUE}\r\n" in heads
    assert os.path.basename(sys.executable) in shown[0][0]
