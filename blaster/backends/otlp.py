"""Traces as stores return them: OTLP JSON, read leniently.

IDs may be hex or base64 (protobuf's own JSON), numbers may be text, keys camelCase or snake_case;
older names (batches, instrumentationLibrarySpans) are known; values of the wrong type are left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from blaster.payload.span import Span

_STATUS = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}


def spans_in(answer: Any) -> list[Span]:
    """Return the spans in an answer, which may be wrapped in trace, result or batches."""
    spans = []
    for item in _span_items(answer):
        span_id = id_of(_get(item, "spanId"), 8)
        trace_id = id_of(_get(item, "traceId"), 16)
        if span_id is None or trace_id is None:
            continue
        spans.append(
            Span(
                trace_id,
                span_id,
                id_of(_get(item, "parentSpanId"), 8) or b"",
                str(item.get("name") or ""),
                _integer(_get(item, "startTimeUnixNano")),
                _integer(_get(item, "endTimeUnixNano")),
                _status(item.get("status")),
                {
                    str(attribute.get("key")): _text(attribute.get("value"))
                    for attribute in _list(item.get("attributes"))
                },
            )
        )
    return spans


def id_of(value: Any, size: int) -> bytes | None:
    """Return an ID of ``size`` bytes from hex (leading zeros may be missing) or base64; None if it
    is neither. 24 or 12 characters are base64: hex has 32 or 16, and writers that strip zeros
    rarely strip that many."""
    if not isinstance(value, str) or not value:
        return None
    try:
        if len(value) == -(-size // 3) * 4:
            decoded = base64.b64decode(value, validate=True)
            if len(decoded) == size:
                return decoded
    except binascii.Error:
        pass
    try:
        return bytes.fromhex(value.rjust(2 * size, "0")) if len(value) <= 2 * size else None
    except ValueError:
        return None


def _span_items(answer: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(answer, dict):
        return
    for key in ("trace", "result"):
        if isinstance(answer.get(key), dict):
            yield from _span_items(answer[key])
    for key in ("resourceSpans", "batches"):
        for resource in _list(_get(answer, key)):
            for scopes in ("scopeSpans", "instrumentationLibrarySpans"):
                for scope in _list(_get(resource, scopes)):
                    yield from _list(scope.get("spans"))


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _get(item: dict[str, Any], camel: str) -> Any:
    if camel in item:
        return item[camel]
    return item.get("".join(f"_{c.lower()}" if c.isupper() else c for c in camel))


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def _status(status: Any) -> int:
    code = status.get("code") if isinstance(status, dict) else None
    return _STATUS.get(code, 0) if isinstance(code, str) else _integer(code)


def _text(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    for key in ("stringValue", "intValue"):
        if (found := _get(value, key)) is not None:
            return str(found)
    if (found := _get(value, "boolValue")) is not None:
        return "true" if found is True else "false"
    found = _get(value, "doubleValue")
    try:
        return None if found is None else repr(float(found))
    except (TypeError, ValueError):
        return None
