"""Sealed documents: written once, read strictly.

A document is a protobuf message written **once** as ProtoJSON text. From then on only those bytes exist: they are
stored, hashed, signed and sent, and never serialised again. Whoever reads verifies the digest or signature first and
then calls `open_sealed`, which lets exactly one text stand for a message:

1. `json_format.Parse` refuses unknown fields, duplicate keys and unknown enum names;
2. the parsed message must render back to the very same JSON value, types compared too. That refuses what Parse lets
   through: camelCase names, null, ``1e2`` for 100, written-out defaults, odd timestamps;
3. a walk over the message refuses unknown enum numbers (which do render back) and unset oneofs.

Sealed messages hold no float, double, 64-bit integer or map with integer keys; `check_sealable` proves it for a type.
"""

import json
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gonogo.digests import digest

PLAN = "application/vnd.gonogo.plan.v1+json"
REPORT = "application/vnd.gonogo.report.v1+json"
APPROVAL = "application/vnd.gonogo.approval.v1+json"
RECEIPT = "application/vnd.gonogo.receipt.v1+json"
REFUSAL = "application/vnd.gonogo.refusal.v1+json"

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 32

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
        text = body.decode("utf-8")
        parsed = json_format.Parse(text, message_type(), max_recursion_depth=MAX_DEPTH)
        written = json.loads(text)
    except (ValueError, RecursionError, json_format.ParseError) as error:
        message = f"not a {message_type.DESCRIPTOR.name} document: {error}"
        raise SealingError(message) from None
    rendered = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    if not _same(written, rendered):
        message = f"not the one text of a {message_type.DESCRIPTOR.name} document"
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


def _same(left: object, right: object) -> bool:
    """Compare JSON values, types included: Python says 1 == 1.0 == True."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


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
