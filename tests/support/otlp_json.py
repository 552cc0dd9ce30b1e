"""OTLP/JSON read and written by the schema's own descriptors: the oracle of the scan in C.

Reading is slow and strict, as native/json_scan.c says; writing uses every freedom that the encoding
leaves (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
"""

from __future__ import annotations

import base64
import json
import math
import random
import re
from typing import Any, NoReturn, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MOST_DEPTH = 100
"""Messages within messages; lists and objects within the value of an unknown name."""

_IDS = frozenset(["trace_id", "span_id", "parent_span_id"])
NOT_OF_TRACES = frozenset(["key_strindex", "string_value_strindex"])
"""Of profiles alone, and not in every version of the schema: unknown names here."""

_F = FieldDescriptor
_RANGES = {
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), (0, 2**64 - 1)),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SFIXED64), (-(2**63), 2**63 - 1)),
    _F.TYPE_ENUM: (-(2**31), 2**31 - 1),
}
_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")

Json: TypeAlias = Any


class _Members(list[tuple[str, Json]]):
    """An object: its names may come twice."""


class _Number(str):
    """A number as it is written."""


def decode(data: bytes) -> ExportTraceServiceRequest:
    """Return the request. Raises ValueError when the bytes are not OTLP/JSON."""
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=_Members,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_no_number,
        )
        _check_surrogates(document)
    except RecursionError:
        raise ValueError("nested too deep") from None
    request = ExportTraceServiceRequest()
    _fill(request, document, 0)
    return request


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _check_surrogates(value: Json) -> None:
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)
    elif isinstance(value, tuple):
        for part in value:
            _check_surrogates(part)


def _check_depth(value: Json, left: int) -> None:
    if isinstance(value, list):
        if left == 0:
            raise ValueError("nested too deep")
        for item in value:
            _check_depth(item[1] if isinstance(value, _Members) else item, left - 1)


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    for field in descriptor.fields:
        if name in (field.name, field.json_name) and field.name not in NOT_OF_TRACES:
            return field
    return None


def _fill(message: Message, members: Json, depth: int) -> None:
    if not isinstance(members, _Members) or depth > MOST_DEPTH:
        raise ValueError("no object, or too deep")
    seen = set()
    for name, value in members:
        field = _field(message.DESCRIPTOR, name)
        if field is None:
            _check_depth(value, MOST_DEPTH)
            continue
        once = [field.name]
        if field.containing_oneof is not None and value is not None:
            once.append("one of " + field.containing_oneof.name)
        if not seen.isdisjoint(once):
            raise ValueError(f"{name} twice")
        seen.update(once)
        if value is None:
            continue
        items = value
        if not field.is_repeated:
            items = [value]
        elif not isinstance(value, list) or isinstance(value, _Members):
            raise ValueError(f"{name}: no list")
        for item in items:
            if field.message_type is not None:
                inner = getattr(message, field.name)
                inner = inner.add() if field.is_repeated else inner
                inner.SetInParent()
                _fill(inner, item, depth + 1)
            elif field.is_repeated:
                getattr(message, field.name).append(_scalar(field, item))
            else:
                setattr(message, field.name, _scalar(field, item))


def _scalar(field: FieldDescriptor, value: Json) -> Any:
    if field.type == _F.TYPE_BOOL:
        if isinstance(value, bool):
            return value
    elif isinstance(value, str):
        if field.type in _RANGES:
            return _integer(field, value)
        if field.type == _F.TYPE_DOUBLE:
            return _double(value)
        if not isinstance(value, _Number):
            if field.type == _F.TYPE_STRING:
                return value
            return _hexadecimal(value) if field.name in _IDS else _base64(value)
    raise ValueError(f"{field.name}: of a wrong type")


def _integer(field: FieldDescriptor, value: str) -> int:
    matched = _DECIMAL.fullmatch(value)
    if matched is None:
        if field.enum_type is None:
            raise ValueError("no number")
        named = field.enum_type.values_by_name.get(value)
        if named is None:
            raise ValueError("no name of the enum")
        return named.number
    sign, whole, fraction, exponent = matched.groups("")
    number, scale = int(whole + fraction), int(exponent or 0) - len(fraction)
    if number and scale > 20:
        raise ValueError("out of range")
    if number and scale < -len(value):
        raise ValueError("not whole")
    if number and scale < 0:
        number, rest = divmod(number, 10**-scale)
        if rest:
            raise ValueError("not whole")
    elif number:
        number *= 10**scale
    number = -number if sign else number
    least, most = _RANGES[field.type]
    if not least <= number <= most:
        raise ValueError("out of range")
    return number


def _double(value: str) -> float:
    if _DECIMAL.fullmatch(value) is None and value not in ("NaN", "Infinity", "-Infinity"):
        raise ValueError("no number")
    number = float(value)
    if math.isinf(number) and not value.endswith("Infinity"):
        raise ValueError("out of range")
    return number


def _hexadecimal(value: str) -> bytes:
    if not re.fullmatch("([0-9A-Fa-f]{2})*", value):
        raise ValueError("not hexadecimal")
    return bytes.fromhex(value)


def _base64(value: str) -> bytes:
    matched = re.fullmatch("([0-9A-Za-z+/_-]*)={0,2}", value)
    if matched is None or len(matched[1]) % 4 == 1:
        raise ValueError("not base64")
    return base64.urlsafe_b64decode(matched[1].translate({43: "-", 47: "_"}) + "==")


def encode(request: ExportTraceServiceRequest, choice: random.Random) -> bytes:
    """Write the request with names, numbers, order, space, escapes and more as ``choice`` has it,
    and members of unknown names between the known."""
    text = _Writer(choice).message(request)
    return text.encode()


class _Writer:
    def __init__(self, choice: random.Random) -> None:
        self._choice = choice
        self._freedom = choice.choice([0.0, 0.1, 0.5])  # how often what is usual is not done

    def _unusual(self) -> bool:
        return self._choice.random() < self._freedom

    def _space(self) -> str:
        return self._choice.choice([" ", "\n", "\t\r", " " * 20]) if self._unusual() else ""

    def message(self, message: Message) -> str:
        members = []
        for field in message.DESCRIPTOR.fields:
            if field.name in NOT_OF_TRACES:
                continue
            value = getattr(message, field.name)
            present = field.has_presence and message.HasField(field.name)
            if field.is_repeated:
                if value or self._unusual():
                    members.append(
                        (field, self._list([self._value(field, item) for item in value]))
                    )
            elif present or (not field.has_presence and (value or self._unusual())):
                members.append((field, self._value(field, value)))
            elif self._unusual():
                members.append((field, "null"))
        written = [
            (field.name if self._unusual() else field.json_name, value) for field, value in members
        ]
        if self._unusual():
            written.append((self._unknown_name(message.DESCRIPTOR), self._any(3)))
        if self._unusual():
            self._choice.shuffle(written)
        return self._object([(self._string(name), value) for name, value in written])

    def _object(self, members: list[tuple[str, str]]) -> str:
        return self._joined(
            "{", [f"{name}{self._space()}:{self._space()}{value}" for name, value in members], "}"
        )

    def _list(self, items: list[str]) -> str:
        return self._joined("[", items, "]")

    def _joined(self, begin: str, items: list[str], end: str) -> str:
        spaced = [self._space() + item + self._space() for item in items]
        return begin + (",".join(spaced) or self._space()) + end

    def _unknown_name(self, descriptor: Descriptor) -> str:
        name = self._choice.choice(
            [
                "",
                "x",
                "Key",
                "spanid",
                "traceIdd",
                "stringValueStrindex",
                "attribute",
                "🙂",
                "spans",
            ]
        )
        return name if _field(descriptor, name) is None else "y"

    def _any(self, depth: int) -> str:
        """Any value."""
        kind = self._choice.randrange(9 if depth else 7)
        if kind < 3:
            return ("null", "true", "false")[kind]
        if kind < 5:
            return self._choice.choice(["0", "-0.5e+3", "1E400", "123456789012345678901", "0.0"])
        if kind < 7:
            return self._string(self._choice.choice(["", "http.route", 'a"\\\n', "é🙂\x00"]))
        inside = [self._any(depth - 1) for _ in range(self._choice.randrange(3))]
        if kind == 7:
            return self._list(inside)
        return self._object([(self._string("spans"), value) for value in inside])

    def _value(self, field: FieldDescriptor, value: Any) -> str:
        if field.message_type is not None:
            return self.message(value)
        if field.type == _F.TYPE_BOOL:
            return str(value).lower()
        if field.type in (_F.TYPE_STRING, _F.TYPE_BYTES):
            text = value
            if field.type == _F.TYPE_BYTES:
                text = self._id(value) if field.name in _IDS else self._base64(value)
            return self._string(text)
        if field.type == _F.TYPE_DOUBLE:
            return self._double(value)
        named = field.enum_type and field.enum_type.values_by_number.get(value)
        if named is not None and self._unusual():
            return self._string(named.name)
        return self._integer(value, quoted=field.type in (_F.TYPE_INT64, _F.TYPE_FIXED64))

    def _id(self, value: bytes) -> str:
        return value.hex().upper() if self._unusual() else value.hex()

    def _base64(self, value: bytes) -> str:
        if self._unusual():
            return base64.urlsafe_b64encode(value).decode().rstrip("=")
        return base64.b64encode(value).decode()

    def _double(self, value: float) -> str:
        if not math.isfinite(value):
            named = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
            return self._string(named[str(value)])
        return self._string(str(value)) if self._unusual() else str(value)

    def _integer(self, value: int, *, quoted: bool) -> str:
        text = str(value)
        if self._unusual():
            text += self._choice.choice([".0", "e0", "E+0", ".000e-0", "0e-1" if value else ""])
        if self._unusual():
            quoted = not quoted
        if not quoted:
            return text
        if self._unusual():
            sign = "-" if text.startswith("-") else ""
            text = sign + "00" + text.removeprefix("-")
        return self._string(text)

    def _string(self, text: str) -> str:
        """A string, each of its characters as it is or escaped."""
        out = ['"']
        for character in text:
            if character in '"\\' or character < " " or self._unusual():
                out.append(self._escaped(character))
            else:
                out.append(character)
        return "".join([*out, '"'])

    def _escaped(self, character: str) -> str:
        short = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r"}
        if character in short and self._choice.random() < 0.5:
            return "\\" + short[character]
        units = character.encode("utf-16-be")
        words = [units[i : i + 2].hex() for i in range(0, len(units), 2)]
        return "".join("\\u" + (w.upper() if self._choice.random() < 0.5 else w) for w in words)
