"""``python -m blaster``, and the ``blaster`` command."""

from blaster.engine.signals import StopSignals
from blaster.streams import forgive


def main() -> None:
    """Run the command line. From the first moment on, SIGINT, SIGTERM and SIGHUP end it in one
    line."""
    forgive()
    with StopSignals(hold=True) as signals:
        from blaster import cli

        cli.main(signals)


if __name__ == "__main__":
    main()
