"""``python -m blaster.sink``: what :class:`blaster.sink.process.EmbeddedSink` starts."""

import sys

from blaster.sink.server import main

if __name__ == "__main__":
    sys.exit(main())
