"""TLS on the wire transport against TLS on grpcio, and against plaintext.

All sides are ``blaster run --rate max`` against the OpenTelemetry Collector (with a certificate on
its gRPC receiver, and without), 1,000 and 100 spans a request, eight in flight; spans per
CPU-second of the generator. Targets: wire over TLS at least twice grpc over TLS at 1,000 spans and
five times at 100.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import interleaved, parse, report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import peers  # noqa: E402
from support.certificates import Authority  # noqa: E402

TARGETS = {1000: 2.0, 100: 5.0}


@contextlib.contextmanager
def collectors(folder: Path, authority: Authority) -> Iterator[dict[str, str]]:
    """Two Collectors that throw all away: their endpoints, in plaintext and over TLS."""
    build = subprocess.run(
        [ROOT / "tests" / "collector" / "build"], capture_output=True, text=True, check=True
    )
    binary = Path(build.stdout.strip())
    pair = authority.issue("server")
    tls = {"tls": {"cert_file": pair.certificate, "key_file": pair.key}}
    overrides = {"receivers": {"otlp": {"protocols": {"grpc": tls}}}}
    with (
        peers.collector(binary) as clear,
        peers.collector(binary, overrides=overrides) as encrypted,
    ):
        yield {"clear": clear.endpoint, "tls": encrypted.endpoint.replace("http:", "https:")}


def run(transport: str, endpoint: str, ca: str, spans: int, seconds: float) -> float:
    command = [sys.executable, "-m", "blaster", "run", "--rate", "max", "--endpoint", endpoint]
    command += ["--transport", transport, "--batch", str(spans), "--workers", "1", "--quiet"]
    command += ["--in-flight", "8", "--duration", f"{int(seconds * 1000)}ms", "--json", "-"]
    if endpoint.startswith("https"):
        command += ["--ca-cert", ca]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(ran.stdout)["generator"]["spans_per_cpu_second"])


def ratio(figures: dict[str, list[float]], over: str, under: str) -> float:
    return statistics.median(a / b for a, b in zip(figures[over], figures[under], strict=True))


def main() -> None:
    short = parse(__doc__).short
    seconds, runs = (1.0, 1) if short else (4.0, 5)
    figures: dict[str, list[float]] = {}
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        authority = Authority(Path(name))
        with collectors(Path(name), authority) as endpoints:
            for spans in TARGETS:
                sides = {
                    f"{transport}_{kind}_{spans}": lambda t=transport, e=endpoint, s=spans: run(
                        t, e, authority.file, s, seconds
                    )
                    for transport in ("wire", "grpc")
                    for kind, endpoint in endpoints.items()
                }
                found = interleaved(sides, runs)
                figures |= found

                ratios[f"wire/grpc over TLS {spans}"] = ratio(
                    found, f"wire_tls_{spans}", f"grpc_tls_{spans}"
                )
                ratios[f"wire TLS/clear {spans}"] = ratio(
                    found, f"wire_tls_{spans}", f"wire_clear_{spans}"
                )
                ratios[f"grpc TLS/clear {spans}"] = ratio(
                    found, f"grpc_tls_{spans}", f"grpc_clear_{spans}"
                )
    report(
        "tls",
        figures,
        unit="spans per CPU-second",
        ratios=ratios,
        targets={
            f"wire/grpc over TLS {spans}": ratios[f"wire/grpc over TLS {spans}"] >= least
            for spans, least in TARGETS.items()
        },
    )


if __name__ == "__main__":
    main()
