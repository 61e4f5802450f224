"""Messages and their JSON values, for sealed documents only: no floats, no 64-bit integers, no wrapper types.

`builder` and `renderer` return functions that are put together once for a message type. `json_format` finds out what a
field is each time it meets one, and takes four times as long; what these give is the same (a contract test holds that
for every kind of field).
"""

import base64
import functools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

# A step without evidence is an edit: its change set says all there is. A request need not send anything.
OPTIONAL_ONEOFS = frozenset({"gonogo.v1.StepReport.evidence", "gonogo.v1.HttpRequest.body"})

Convert = Callable[[Any], Any]

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - only ever the base of a difference
SECOND = timedelta(seconds=1)


@functools.cache
def builder(descriptor: Descriptor) -> Convert:
    """Return what builds a message from its JSON value.

    It raises an ordinary Python error for most of what is wrong and lets the rest through. Whoever reads strictly
    renders the message again and compares.
    """
    fields = {field.name: _each(field, _build_one(field)) for field in descriptor.fields}
    message_type = GetMessageClass(descriptor)

    def build(value: Any) -> Any:
        made = {}
        for name, item in value.items():
            convert = fields[name]
            made[name] = item if convert is None else convert(item)
        return message_type(**made)

    return build


@functools.cache
def renderer(descriptor: Descriptor) -> Convert:
    """Return what gives a message's one JSON value.

    It raises LookupError for an enum number without a name and for a oneof of which no field is set.
    """
    fields = {field.number: (field.name, _each(field, _render_one(field))) for field in descriptor.fields}
    required = [
        (oneof.full_name, {field.name for field in oneof.fields})
        for oneof in descriptor.oneofs
        if not _is_synthetic(oneof) and oneof.full_name not in OPTIONAL_ONEOFS
    ]

    def render(message: Any) -> dict[str, Any]:
        value = {}
        for field, item in message.ListFields():
            name, convert = fields[field.number]
            value[name] = item if convert is None else convert(item)
        for oneof, names in required:
            if names.isdisjoint(value):
                text = f"{oneof}: none of its fields is set"
                raise LookupError(text)
        return value

    return render


def _is_synthetic(oneof: Any) -> bool:
    """Tell whether a oneof only stands for `optional`."""
    return len(oneof.fields) == 1 and oneof.name.startswith("_")


def _each(field: FieldDescriptor, one: Convert | None) -> Convert | None:
    if not field.is_repeated or _is_map(field.message_type):
        return one
    return list if one is None else lambda items: [one(item) for item in items]


def _is_map(descriptor: Descriptor | None) -> bool:
    return descriptor is not None and bool(descriptor.GetOptions().map_entry)


def _build_one(field: FieldDescriptor) -> Convert | None:
    """Return how a field's value is read; None where it is taken as it is."""
    if field.enum_type is not None:
        return {value.name: value.number for value in field.enum_type.values}.__getitem__
    if _is_map(field.message_type):
        return dict  # sealed maps hold text only
    if field.message_type is not None:
        return _build_time if _is_time(field.message_type) else builder(field.message_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda text: base64.b64decode(text, validate=True)
    return None


def _render_one(field: FieldDescriptor) -> Convert | None:
    """Return how a field's value is written; None where it is taken as it is."""
    if field.enum_type is not None:
        return {value.number: value.name for value in field.enum_type.values}.__getitem__
    if _is_map(field.message_type):
        return dict
    if field.message_type is not None:
        return _render_time if _is_time(field.message_type) else renderer(field.message_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda data: base64.b64encode(data).decode("ascii")
    return None


def _is_time(descriptor: Descriptor) -> bool:
    return bool(descriptor.full_name == Timestamp.DESCRIPTOR.full_name)


def _build_time(text: str) -> Timestamp:
    if not text.endswith("Z"):
        message = f"{text!r} is no time in UTC"
        raise ValueError(message)
    whole, _, fraction = text[:-1].partition(".")
    if fraction and not (fraction.isascii() and fraction.isdigit()):
        message = f"{fraction!r} is no part of a second"
        raise ValueError(message)
    seconds = (datetime.fromisoformat(whole) - EPOCH) // SECOND
    return Timestamp(seconds=seconds, nanos=int(fraction.ljust(9, "0")) if fraction else 0)


def _render_time(time: Any) -> str:
    whole = (EPOCH + timedelta(seconds=time.seconds)).isoformat()
    nanos = time.nanos
    if not nanos:
        return f"{whole}Z"
    digits = f"{nanos:09d}"
    for kept in (3, 6):
        if digits.endswith("0" * (9 - kept)):
            return f"{whole}.{digits[:kept]}Z"
    return f"{whole}.{digits}Z"
