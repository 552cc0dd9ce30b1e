"""The names of a JSON document made those of the schema.

OTLP's receivers ignore unknown names, and as the Collector does they take protobuf's own
(``resource_spans``) for those of JSON.
"""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

from blaster.otlp import json_schema
from blaster.otlp.json_schema import Message, Request


def known_names(document: Any, message: type[Message] = Request) -> Any:
    """Return the JSON value ``document`` with the names of ``message`` alone. RecursionError if it
    is nested too deep."""
    if not isinstance(document, dict):
        return document
    known = _MEMBERS[message]
    found = {}
    for name, value in document.items():
        camel = name if name in known else _camel(name)
        if camel not in known or camel in found:
            continue
        inner = known[camel]
        if inner is None:
            found[camel] = value
        elif isinstance(value, list):
            found[camel] = [known_names(item, inner) for item in value]
        else:
            found[camel] = known_names(value, inner)
    return found


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _inner_message(hint: Any) -> type[Message] | None:
    """The message in ``Message | None`` or ``tuple[Message, ...] | None``."""
    if isinstance(hint, type) and issubclass(hint, Message):
        return hint
    return next(filter(None, map(_inner_message, get_args(hint))), None)


def _members(message: type[Message]) -> dict[str, type[Message] | None]:
    hints = get_type_hints(message)
    names = zip(message.__struct_encode_fields__, message.__struct_fields__, strict=True)
    return {encoded: _inner_message(hints[name]) for encoded, name in names}


_MEMBERS = {
    message: _members(message)
    for message in vars(json_schema).values()
    if isinstance(message, type) and issubclass(message, Message)
}
"""The members of each message by their names in JSON, and the messages in them."""
