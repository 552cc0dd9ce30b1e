"""The rules that the sink evaluates and that violations of a workload break."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

SLOW = "load-test-slow-requests"
ERRORS = "load-test-errors"
MISSING_AUTH = "load-test-missing-auth"

RULES = (SLOW, ERRORS, MISSING_AUTH)
"""The names of the rules, in the order in which every tuple of violations counts them."""

SLOW_NANOSECONDS = 500_000_000

STATUS_ERROR = 2
"""STATUS_CODE_ERROR of opentelemetry.proto.trace.v1.Status."""


def violations_of(span: Span) -> tuple[bool, bool, bool]:
    """Whether a span breaks each of RULES: longer than 500 ms; status ERROR; http.route without
    auth.token."""
    keys = {attribute.key for attribute in span.attributes}
    return (
        span.end_time_unix_nano - span.start_time_unix_nano > SLOW_NANOSECONDS,
        span.status.code == STATUS_ERROR,
        "http.route" in keys and "auth.token" not in keys,
    )
