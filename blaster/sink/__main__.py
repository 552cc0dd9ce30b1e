"""``python -m blaster.sink``: the process that blaster.sink.process.EmbeddedSink starts."""

import sys

from blaster.sink.server import main

if __name__ == "__main__":
    sys.exit(main())
