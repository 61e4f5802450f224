"""Sealed documents: written once, read strictly.

A document is a protobuf message written **once** as ProtoJSON text. From then on only those bytes exist: they are
stored, hashed, signed and sent, and never serialised again. Whoever reads verifies the digest or signature first and
then calls `open_sealed`, which lets exactly one JSON value stand for a message:

1. duplicate keys are refused while the text is read, unknown fields and enum names while the message is built;
2. the message, rendered by the protobuf library, must be the very same JSON value, types compared too. Whatever the
   building lets through does not get past that: camelCase names, null, ``1e2`` for 100, written-out defaults, odd
   timestamps. So the builder can be small and quick; it takes a third of the time of `json_format.ParseDict`;
3. a walk over the message refuses unknown enum numbers (which do render back) and unset oneofs.

Sealed messages hold no float, double, 64-bit integer or map with integer keys; `check_sealable` proves it for a type.
"""

import base64
import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from gonogo.digests import digest

PLAN = "application/vnd.gonogo.plan.v1+json"
REPORT = "application/vnd.gonogo.report.v1+json"
APPROVAL = "application/vnd.gonogo.approval.v1+json"
RECEIPT = "application/vnd.gonogo.receipt.v1+json"
REFUSAL = "application/vnd.gonogo.refusal.v1+json"

MAX_BODY_BYTES = 64 * 1024 * 1024

# A step without evidence is an edit: its change set says all there is.
OPTIONAL_ONEOFS = frozenset({"gonogo.v1.StepReport.evidence"})

FORBIDDEN_TYPES = frozenset(
    {
        FieldDescriptor.CPPTYPE_FLOAT,
        FieldDescriptor.CPPTYPE_DOUBLE,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)

M = TypeVar("M", bound=Message)


class SealingError(ValueError):
    """The bytes are not the one text of a document of that type; nothing in them may be relied on."""


def seal(message: Message) -> bytes:
    """Write a document's bytes. Do this once per document."""
    value = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def sealed_digest(body: bytes) -> str:
    """Return the digest that names a sealed document."""
    return digest(body)


def open_sealed(body: bytes, message_type: type[M]) -> M:
    """Read a document strictly.

    Verify the digest or the signature of `body` first.

    Raises:
        SealingError: the bytes are anything but the one text of such a document.
    """
    if len(body) > MAX_BODY_BYTES:
        message = f"the document has {len(body)} bytes; the limit is {MAX_BODY_BYTES}"
        raise SealingError(message)
    try:
        written = _strict_json.decode(body.decode("utf-8"))
        parsed = cast("M", _builder(message_type.DESCRIPTOR)(written))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        message = f"not a {message_type.DESCRIPTOR.name} document: {error}"
        raise SealingError(message) from None
    rendered = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    if _sorted_text(written) != _sorted_text(rendered):
        message = f"not the one value of a {message_type.DESCRIPTOR.name} document"
        raise SealingError(message)
    _check_walk(parsed)
    return parsed


def check_sealable(descriptor: Descriptor, seen: frozenset[str] = frozenset()) -> list[str]:
    """Return the fields of a message type, or of what it holds, that a sealed document may not have."""
    if descriptor.full_name in seen or descriptor.full_name.startswith("google.protobuf."):
        return []
    found: list[str] = []
    for field in descriptor.fields:
        if field.message_type is not None:
            found += check_sealable(field.message_type, seen | {descriptor.full_name})
        elif field.cpp_type in FORBIDDEN_TYPES:
            found.append(field.full_name)
    return found


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        message = "a key stands there twice"
        raise SealingError(message)
    return value


def _refuse_constant(name: str) -> object:
    message = f"{name} is no JSON number"
    raise SealingError(message)


def _sorted_text(value: object) -> str:
    """Return a text that tells values and their types apart: Python says 1 == 1.0 == True, this does not."""
    return json.dumps(value, sort_keys=True)


_strict_json = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)


Builder = Callable[[Any], Any]


@functools.cache
def _builder(descriptor: Descriptor) -> Builder:
    """Return what builds a message of a type from its JSON value.

    It raises an ordinary Python error for most of what is wrong, and may let the rest through: see above.
    """
    fields = {field.name: _field_builder(field) for field in descriptor.fields}
    message_type = GetMessageClass(descriptor)

    def build(value: dict[str, Any]) -> Any:
        return message_type(**{name: fields[name](item) for name, item in value.items()})

    return build


def _field_builder(field: FieldDescriptor) -> Builder:
    one = _value_builder(field)
    if not field.is_repeated or (field.message_type is not None and field.message_type.GetOptions().map_entry):
        return one
    return lambda items: [one(item) for item in items]


def _value_builder(field: FieldDescriptor) -> Builder:
    if field.enum_type is not None:
        numbers = {value.name: value.number for value in field.enum_type.values}
        return numbers.__getitem__
    if field.message_type is not None:
        return _message_builder(field.message_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda text: base64.b64decode(text, validate=True)
    return lambda item: item


def _message_builder(descriptor: Descriptor) -> Builder:
    if descriptor.GetOptions().map_entry:
        return dict
    if descriptor.full_name == Timestamp.DESCRIPTOR.full_name:
        return _timestamp
    return _builder(descriptor)


def _timestamp(text: str) -> Timestamp:
    found = Timestamp()
    found.FromJsonString(text)
    return found


def _check_walk(message: Message) -> None:
    for oneof in message.DESCRIPTOR.oneofs:
        synthetic = len(oneof.fields) == 1 and oneof.name.startswith("_")
        if not synthetic and oneof.full_name not in OPTIONAL_ONEOFS and message.WhichOneof(oneof.name) is None:
            text = f"{oneof.full_name}: none of its fields is set"
            raise SealingError(text)
    for field, value in message.ListFields():
        _check_field(field, value)


def _check_field(field: FieldDescriptor, value: object) -> None:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number
        for number in value if field.is_repeated else [value]:  # type: ignore[attr-defined]  # repeated means iterable
            if number not in known:
                text = f"{field.full_name}: unknown number {number}"
                raise SealingError(text)
    elif field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf."):
        if field.message_type.GetOptions().map_entry:
            return  # sealed maps hold text only; check_sealable and the contract test hold that
        for item in value if field.is_repeated else [value]:  # type: ignore[attr-defined]  # repeated means iterable
            _check_walk(item)
