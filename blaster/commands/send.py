"""``blaster send``: one span, and whether it can be seen."""

from __future__ import annotations

import typer

from blaster.commands import option

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster send   |   blaster send --endpoint http://collector:4317 "
    "--verify collector=http://collector:8888 --verify tempo=http://tempo:3200"
)
def send(
    endpoint: option.Endpoint = None,
    transport: option.TransportName = "auto",
    timeout: option.Timeout = None,
    headers: option.Headers = None,
    insecure: option.Insecure = False,
    insecure_skip_verify: option.SkipVerify = False,
    ca_cert: option.CaCert = None,
    client_cert: option.ClientCert = None,
    client_key: option.ClientKey = None,
    verify: option.Verify = None,
    verify_limit: option.VerifyLimit = "60s",
    verify_header: option.VerifyHeaders = None,
) -> None:
    """Send one span (slow-operation, 2 s) and, with --verify, wait until it is seen.

    Exit status 1 where it was not accepted, or a backend does not show it.
    """
    from blaster import send as sending
    from blaster.backends.verify import parse_headers
    from blaster.engine.signals import StopSignals
    from blaster.report.sent import show_answers, show_sent
    from blaster.transport.otlp_settings import OtlpOptions

    options = OtlpOptions(**option.otlp(locals()))
    limit_s, asked_with = option.limit_s(verify_limit), parse_headers(verify_header or ())
    with StopSignals() as signals:
        sent = sending.send(options, verify or (), limit_s, asked_with, signals, show_sent)
    show_answers(sent)
    raise typer.Exit(0 if sent.arrived else 1)
