"""JSON Schema (draft 2020-12) of the files that --json writes."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from blaster.engine.results import Results
from blaster.verdict.capacity import Capacity


def schema() -> dict[str, Any]:
    """Return the schema of the results of a run or of a search for the capacity. Every key is
    always written; the descriptions are the docstrings of what is described."""
    kinds, defined = msgspec.json.schema_components(
        (Results, Capacity), ref_template="#/$defs/{name}"
    )
    for definition in defined.values():
        definition["required"] = list(definition["properties"])
        if "description" in definition:
            text = inspect.cleandoc(definition["description"]).replace("``", "`")
            paragraphs = text.split("\n\n")
            definition["description"] = "\n\n".join(" ".join(p.split("\n")) for p in paragraphs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "blaster results",
        "anyOf": list(kinds),
        "$defs": defined,
    }


def to_json() -> str:
    """Return the schema as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"
