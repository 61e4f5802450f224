"""Sealed documents: written once, read strictly.

A document is a protobuf message written **once** as ProtoJSON text. From then on only those bytes exist: they are
stored, hashed, signed and sent, and never serialised again. Whoever reads verifies the digest or signature first and
then calls `open_sealed`, which lets exactly one JSON value stand for a message:

1. duplicate keys are refused while the text is read, unknown fields and enum names while the message is built;
2. the message, rendered again, must be the very same JSON value, types compared too. Whatever the building lets through
   does not get past that: camelCase names, null, ``1e2`` for 100, written-out defaults, odd timestamps;
3. the rendering refuses unknown enum numbers and unset oneofs.

Sealed messages hold no float, double, 64-bit integer or map with integer keys; `check_sealable` proves it for a type.
"""

import json
from typing import TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gonogo.digests import digest
from gonogo.proto_json import builder, renderer

PLAN = "application/vnd.gonogo.plan.v1+json"
REPORT = "application/vnd.gonogo.report.v1+json"
APPROVAL = "application/vnd.gonogo.approval.v1+json"
RECEIPT = "application/vnd.gonogo.receipt.v1+json"
REFUSAL = "application/vnd.gonogo.refusal.v1+json"
POLICY = "application/vnd.gonogo.policy.v1+json"
REVOCATION = "application/vnd.gonogo.revocation.v1+json"
STEP_APPROVAL = "application/vnd.gonogo.step-approval.v1+json"
RECONCILIATION = "application/vnd.gonogo.reconciliation.v1+json"

MAX_BODY_BYTES = 64 * 1024 * 1024

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
    """Write a document's bytes. Do this once per document.

    Raises:
        SealingError: no reader would take it: a oneof of which no field is set, or an enum number without a name.
    """
    try:
        return _text(renderer(message.DESCRIPTOR)(message)).encode()
    except LookupError as error:
        text = f"not a whole {message.DESCRIPTOR.name} document: {error}"
        raise SealingError(text) from None


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
        written = _strict_json.decode(text)
        parsed = cast("M", builder(message_type.DESCRIPTOR)(written))
        rendered = renderer(message_type.DESCRIPTOR)(parsed)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        message = f"not a {message_type.DESCRIPTOR.name} document: {error}"
        raise SealingError(message) from None
    if _text(rendered) != text and _sorted_text(rendered) != _sorted_text(written):
        message = f"not the one value of a {message_type.DESCRIPTOR.name} document"
        raise SealingError(message)
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


def _text(value: object) -> str:
    """Return the text that this house writes for a value."""
    return _written(value)


def _sorted_text(value: object) -> str:
    """Return a text that tells values and their types apart: Python says 1 == 1.0 == True, this does not."""
    return json.dumps(value, sort_keys=True)


_written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_strict_json = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
