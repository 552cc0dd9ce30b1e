"""A load generator for OpenTelemetry trace backends."""

import os

__version__ = "0.1.0"

# numpy's BLAS, which nothing here uses, would start a thread a core when it is imported; workers
# are forked from a process that has one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
