"""Mutations of a valid input: of its bytes and, where it is JSON, of its values."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**40),
    *(0.0, -0.0, 0.5, -1.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "a",
        "0",
        "-1",
        "1" * 32,
        "\x1b[2J",
        "\ud800",
        "\u202e",
        "[red]x[/y]",
        "a\nb",
        "|",
        "x" * 999,
    ),
    *([], {}, [[]], [{}], [None], {"": None}),
)

PIECES = (
    *(b"", b"\0", b"\xff", b"\r\n", b"\r\n\r\n", b"\n", b" ", b":", b",", b"{", b"}", b"[", b"]"),
    *(b'"', b"\\u0000", b"\\ud800", b"-", b"0", b"9" * 20, b"1e999", b"0x", b"NaN", b"\xc3\x28"),
)


def mutated(dice: random.Random, data: bytes, dictionary: tuple[bytes, ...] = ()) -> bytes:
    """Return ``data`` with some mutations; ``dictionary``: more pieces that may be put in."""
    try:
        document = json.loads(data) if dice.random() < 0.8 else None
    except ValueError:
        document = None
    if document is not None:
        for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
            document = _mutated_json(dice, document)
        return json.dumps(document).encode("utf-8", "surrogatepass")
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        begin = dice.randint(0, len(changed))
        end = min(len(changed), begin + dice.choice((0, 0, 1, 1, 2, 8, 64)))
        piece = dice.choice((*PIECES, *dictionary, bytes(changed[begin:end]) * 2))
        changed[begin:end] = piece
    return bytes(changed)


def _mutated_json(dice: random.Random, document: Any) -> Any:
    """Change, remove, double or add one value somewhere in the document."""
    places = list(_places(document)) if isinstance(document, dict | list) else []
    if not places:
        return copy.deepcopy(dice.choice(VALUES))
    inner, key = dice.choice(places)
    act = dice.randrange(6)
    if act <= 2:
        # Half of them of the same type: others are refused at once.
        alike = [value for value in VALUES if type(value) is type(inner[key])]
        inner[key] = copy.deepcopy(dice.choice(alike if alike and dice.random() < 0.5 else VALUES))
    elif act == 3:
        del inner[key]
    elif act == 4:
        other, there = dice.choice(places)
        inner[key] = copy.deepcopy(other[there]) if _has(other, there) else None
    elif isinstance(inner, list):
        inner.extend(copy.deepcopy(inner) * dice.choice((1, 1, 9)))
    else:
        key = dice.choice(("", "x", "schema", "trials", "\x1b"))
        inner[key] = copy.deepcopy(dice.choice(VALUES))
    return document


def _places(node: Any) -> Any:
    """Yield each value below ``node`` as its container and its key there."""
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def _has(inner: Any, key: Any) -> bool:
    return key in inner if isinstance(inner, dict) else key < len(inner)
