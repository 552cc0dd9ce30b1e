"""The command line: parses, calls, and turns errors into one line and an exit status."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from blaster import __version__
from blaster.commands import (
    capacity,
    cluster,
    dashboard,
    doctor,
    guide,
    profile,
    proxy,
    report,
    run,
    scenarios,
    schema,
    send,
    sink,
    templates,
)
from blaster.engine.signals import StopSignals
from blaster.errors import BlasterError
from blaster.process_title import hide_secrets

app = typer.Typer(
    name="blaster",
    help="A load generator for OpenTelemetry trace backends.",
    epilog="Examples:  blaster run normal --embedded   |   blaster run --help   |   "
    "blaster report results.json --html report.html   |   blaster guide   |   "
    "blaster --install-completion",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"blaster {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A load generator for OpenTelemetry trace backends."""
    # A run that is being made ready is written down all the same: it releases them itself.
    if context.invoked_subcommand != "run":
        context.obj.release()


# As the help lists them.
for command in (run, capacity, sink, proxy, scenarios, profile, dashboard, send, doctor, report):
    app.add_typer(command.app)
app.add_typer(schema.app)
app.add_typer(guide.app)
app.add_typer(templates.app, name="templates")
app.add_typer(cluster.app, name="cluster")


def main(signals: StopSignals) -> None:
    """The ``blaster`` command; ``signals`` are held, for it to release them."""
    hide_secrets()
    try:
        arguments = sys.argv[1:] or ["--help"]
        status: Any = app(arguments, prog_name="blaster", standalone_mode=False, obj=signals)
        sys.exit(status if isinstance(status, int) else 0)
    except TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except BlasterError as error:
        _fail(str(error), error.exit_status)


def _fail(message: str, status: int) -> None:
    from blaster.text import clean

    print(clean(f"blaster: {' '.join(message.split())}"), file=sys.stderr)
    sys.exit(status)
