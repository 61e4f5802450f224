"""The JSON that scripts read: contract messages with every field present and values of the JSON type they stand for.

Unlike sealed text, numbers are JSON numbers whatever their width, decimal texts of sizes too; enums are their short
lower-case names, null where unspecified; times are RFC 3339, null where unset. Text is given as it is: JSON escapes
control characters by itself, and a program, not a person, reads it.
"""

import base64
from collections.abc import Iterable
from typing import Any, TypeAlias

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Json: TypeAlias = dict[str, Any]

# protobuf has two implementations of its descriptors, and no type that stands for both.
EnumDescriptor: TypeAlias = Any
FieldDescriptor: TypeAlias = Any

DECIMAL_TEXTS = frozenset(
    {
        "gonogo.v1.Excerpt.total_bytes",
        "gonogo.v1.FetchEvidence.size",
        "gonogo.v1.FetchUrl.max_bytes",
        "gonogo.v1.NodeState.size",
        "gonogo.v1.Scope.max_bytes",
    }
)


def to_json(message: Message) -> Json:
    """Return a message as a JSON object."""
    result: Json = {}
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and not message.HasField(field.name):
            if _is_optional(field):
                result[field.name] = None
            continue
        result[field.name] = _field(message, field)
    return result


def short_enum(descriptor: EnumDescriptor, number: int) -> str | None:
    """Return the short name of an enum's value, None where it is unspecified."""
    if number == 0:
        return None
    value = descriptor.values_by_number.get(number)
    return f"unknown_{number}" if value is None else value.name.removeprefix(enum_prefix(descriptor)).lower()


def enum_prefix(descriptor: EnumDescriptor) -> str:
    """Return what every value's name begins with."""
    return str(descriptor.values_by_number[0].name).removesuffix("UNSPECIFIED")


def short_name(message: Message, field_name: str) -> str:
    """Return the short name of an enum field's value, empty where it is unspecified."""
    descriptor = message.DESCRIPTOR.fields_by_name[field_name].enum_type
    return short_enum(descriptor, getattr(message, field_name)) or ""


def rfc3339(time: Timestamp) -> str:
    """Return a time as text."""
    return time.ToJsonString()


def _is_optional(field: FieldDescriptor) -> bool:
    oneof = field.containing_oneof
    return oneof is not None and len(oneof.fields) == 1 and oneof.name.startswith("_")


def _field(message: Message, field: FieldDescriptor) -> object:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_value(field, item) for item in _items(value)]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _value(field, value)


def _items(value: Iterable[object]) -> Iterable[object]:
    return value


def _value(field: FieldDescriptor, value: Any) -> object:
    if isinstance(value, Timestamp):
        return rfc3339(value)
    if isinstance(value, Message):
        return to_json(value)
    if field.enum_type is not None:
        return short_enum(field.enum_type, value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if field.full_name in DECIMAL_TEXTS:
        return int(value) if value.isdecimal() else None
    return value
