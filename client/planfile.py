"""Plan files: lenient in form (YAML or JSON, short names, defaults left out), strict in meaning.

The contract's own field descriptors decide which names there are and what a value must look like, so that a plan file
can say what a `PlanDraft` can say and nothing else. Whether the plan is *allowed* is for the services to decide.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor as FieldType
from google.protobuf.message import Message

from client.errors import PlanFileError
from client.json_form import DECIMAL_TEXTS, enum_prefix
from client.plantree import Listing, Mapping, Node, Scalar, json_text, read_tree
from gonogo.proto_json import OPTIONAL_ONEOFS
from gonogo.v1 import plan_pb2

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_STEPS = 1000

# protobuf has two implementations of its descriptors, and no type that stands for both.
Descriptor: TypeAlias = Any
FieldDescriptor: TypeAlias = Any

STEP_FIELDS = ("step_id", "description", "stage", "needs_approval", "compensation")
KINDS: dict[str, FieldDescriptor] = {
    field.name: field for field in plan_pb2.Step.DESCRIPTOR.oneofs_by_name["action"].fields
}

REQUIRED: dict[str, tuple[str, ...]] = {
    "PlanDraft": ("objective", "workspace", "steps"),
    "SearchFiles": ("pattern", "path"),
    "PatchFile": ("path", "patch"),
    "ReplaceText": ("path", "old", "new"),
    "AppendText": ("path", "content"),
    "MovePath": ("path", "to"),
    "SetMode": ("path", "mode"),
    "RunCommand": ("argv",),
    "RunTests": ("argv",),
    "UndoStep": ("mission_id", "step_id"),
    "FetchUrl": ("url",),
    "SearchBodies": ("query",),
    "HttpRequest": ("method", "url"),
    "HttpHeader": ("name", "value"),
    "RunLive": ("argv", "access"),
    "CallTool": ("server", "tool"),
    "RunSql": ("database", "statement"),
    "ReadinessCheck": (),
    "Compensation": (),
    "PauseRules": (),
    "Scope": (),
}
REQUIRED_OTHERWISE = ("path",)
JSON_TEXTS = frozenset({"gonogo.v1.CallTool.arguments", "gonogo.v1.RunSql.parameters"})
"""JSON as text in the contract, written as plain values here."""

_INTEGER = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)
_MAX_UINT32 = 2**32 - 1


def parse(data: bytes) -> plan_pb2.PlanDraft:
    """Read a plan file.

    Raises:
        PlanFileError: with the line, what is wrong there, and what to do.
    """
    root = read_tree(_text(data), nulls=True)
    draft = plan_pb2.PlanDraft()
    _fill(draft, _as_mapping(root, "the plan"), "the plan")
    _check_steps(draft, root)
    return draft


def parse_repair(data: bytes) -> plan_pb2.PlanDraft:
    """Read a plan file for a mission that is there already: it may leave out what the mission's first plan says.

    Raises:
        PlanFileError: as `parse` does.
    """
    root = read_tree(_text(data), nulls=True)
    draft = plan_pb2.PlanDraft()
    _fill_fields(draft, _as_mapping(root, "the plan"), "the plan")
    _check_steps(draft, root)
    return draft


def _text(data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        remedy = "large files come from commands, not from the plan"
        raise PlanFileError(1, f"the file has {len(data)} bytes; the limit is {MAX_FILE_BYTES}", remedy)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PlanFileError(line, "not UTF-8", "save the file as UTF-8; bytes go into data as base64") from None


def _fill(message: Message, node: Mapping, where: str) -> None:
    _fill_fields(message, node, where)
    _check_required(message, message.DESCRIPTOR, node, where)


def _fill_fields(message: Message, node: Mapping, where: str) -> None:
    descriptor: Descriptor = message.DESCRIPTOR
    for key, value in node.items:
        field = descriptor.fields_by_name.get(_encodable(key, f"{where}: a name"))
        if field is None:
            raise _unknown(key, where, descriptor.fields_by_name)
        _refuse_second_arm(message, field, key, where)
        _set(message, field, value, f"{where}: {key.text}")


def _set(message: Message, field: FieldDescriptor, value: Node, where: str) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _fill_map(getattr(message, field.name), value, where)
    elif field.full_name == "gonogo.v1.HttpRequest.headers":
        _fill_headers(getattr(message, field.name), value, where)
    elif field.is_repeated:
        _fill_list(message, field, value, where)
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.SetInParent()
        _fill(target, _as_mapping(value, where), where)
    else:
        setattr(message, field.name, _scalar(field, value, where))


def _fill_list(message: Message, field: FieldDescriptor, value: Node, where: str) -> None:
    if isinstance(value, Scalar):
        _refuse_null(value)
    if not isinstance(value, Listing):
        hint = "write the program and each argument as one item" if field.name == "argv" else "write a list"
        raise PlanFileError(value.line, f"{where} must be a list", hint)
    target = getattr(message, field.name)
    if field.name == "steps":
        _fill_steps(target, value)
    else:
        for item in value.items:
            target.append(_json(item, where) if field.full_name in JSON_TEXTS else _scalar(field, item, where))


def _fill_headers(target: Any, value: Node, where: str) -> None:
    """Take headers as names and values, or as a list of both."""
    if isinstance(value, Mapping):
        for key, item in value.items:
            header = target.add()
            header.name = _encodable(key, where)
            _set(header, header.DESCRIPTOR.fields_by_name["value"], item, f"{where}: {key.text}")
    elif isinstance(value, Listing):
        for item in value.items:
            _fill(target.add(), _as_mapping(item, where), where)
    else:
        raise PlanFileError(value.line, f"{where} must be names and values", "write name: value lines")


def _fill_steps(target: Any, value: Listing) -> None:
    if len(value.items) > MAX_STEPS:
        raise PlanFileError(value.line, f"{len(value.items)} steps; the limit is {MAX_STEPS}", "split the plan")
    for number, item in enumerate(value.items, 1):
        _fill_step(target.add(), item, f"step {number}")


def _fill_step(step: plan_pb2.Step, node: Node, where: str) -> None:
    mapping = _as_mapping(node, where)
    kinds = [key for key, _ in mapping.items if key.text in KINDS]
    for key, _ in mapping.items:
        if key.text not in KINDS and key.text not in STEP_FIELDS:
            raise _unknown(key, where, [*KINDS, *STEP_FIELDS])
    if not kinds:
        raise PlanFileError(mapping.line, f"{where} names no kind of step", f"name one of: {', '.join(KINDS)}")
    if len(kinds) > 1:
        names = " and ".join(key.text for key in kinds)
        raise PlanFileError(kinds[1].line, f"{where} names two kinds: {names}", "make two steps of it")
    for key, value in mapping.items:
        inside = f"{where}, {key.text}" if key.text in KINDS else f"{where}: {key.text}"
        _set(step, plan_pb2.Step.DESCRIPTOR.fields_by_name[key.text], value, inside)


def _fill_map(target: Any, value: Node, where: str) -> None:
    for key, item in _as_mapping(value, where).items:
        name = _encodable(key, where)
        if not isinstance(item, Scalar):
            raise PlanFileError(item.line, f"{where}: {name} must be text", "write one value")
        _refuse_null(item)
        target[name] = _encodable(item, where)


def _json(value: Node, where: str) -> str:
    """Return a value as JSON text."""
    text = json_text(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PlanFileError(value.line, f"{where} holds half a character", "write the whole character") from None
    return text


def _scalar(field: FieldDescriptor, value: Node, where: str) -> object:
    if field.full_name in JSON_TEXTS and isinstance(value, Mapping):
        return _json(value, where)
    if not isinstance(value, Scalar):
        raise PlanFileError(value.line, f"{where} must be one value", "write one value, not a list or mapping")
    _refuse_null(value)
    if not value.text and not value.quoted:
        raise PlanFileError(value.line, f"{where} has no value", 'leave the field out, or write "" for an empty text')
    if field.enum_type is not None:
        return _enum(field.enum_type, value, where)
    if field.full_name in DECIMAL_TEXTS:
        return str(_integer(value, where, 2**63 - 1))
    return _READERS[field.type](value, where)


def _string(value: Scalar, where: str) -> str:
    return _encodable(value, where)


def _bytes(value: Scalar, where: str) -> bytes:
    try:
        return base64.b64decode(value.text, validate=True)
    except (binascii.Error, ValueError):
        raise PlanFileError(value.line, f"{where} must be base64", "use content for text, data for base64") from None


def _bool(value: Scalar, where: str) -> bool:
    if value.quoted or value.text not in {"true", "false"}:
        raise PlanFileError(value.line, f"{where} must be true or false, not {value.text!r}", "write true or false")
    return value.text == "true"


def _uint32(value: Scalar, where: str) -> int:
    return _integer(value, where, _MAX_UINT32)


def _integer(value: Scalar, where: str, limit: int) -> int:
    if value.quoted or not _INTEGER.fullmatch(value.text) or int(value.text) > limit:
        problem = f"{where} must be a whole number from 0 to {limit}, not {value.text[:40]!r}"
        raise PlanFileError(value.line, problem, "write decimal digits only, without quotes")
    return int(value.text)


_READERS = {
    FieldType.TYPE_STRING: _string,
    FieldType.TYPE_BYTES: _bytes,
    FieldType.TYPE_BOOL: _bool,
    FieldType.TYPE_UINT32: _uint32,
}


def _enum(descriptor: Any, value: Scalar, where: str) -> int:
    prefix = enum_prefix(descriptor)
    names = {one.name.removeprefix(prefix).lower(): one.number for one in descriptor.values if one.number}
    if value.text not in names:
        problem = f"{where} can not be {value.text!r}{_nearest(value.text, names)}"
        raise PlanFileError(value.line, problem, f"write one of: {', '.join(names)}")
    return int(names[value.text])


def _refuse_null(value: Scalar) -> None:
    if value.null:
        raise PlanFileError(value.line, "null is no value", "leave the field out")


def _encodable(value: Scalar, where: str) -> str:
    try:
        value.text.encode()
    except UnicodeEncodeError:
        raise PlanFileError(value.line, f"{where} holds half a character", "write the whole character") from None
    return value.text


def _as_mapping(node: Node, where: str) -> Mapping:
    if isinstance(node, Scalar):
        _refuse_null(node)
    if not isinstance(node, Mapping):
        raise PlanFileError(node.line, f"{where} must be fields and values", "write name: value lines, indented alike")
    return node


def _refuse_second_arm(message: Message, field: FieldDescriptor, key: Scalar, where: str) -> None:
    oneof = field.containing_oneof
    other = message.WhichOneof(oneof.name) if oneof is not None else None
    if other is not None:
        raise PlanFileError(key.line, f"{where}: {other} and {key.text} exclude each other", "leave one of the two out")


def _check_required(message: Message, descriptor: Descriptor, node: Mapping, where: str) -> None:
    given = {key.text for key, _ in node.items}
    for name in REQUIRED.get(descriptor.name, REQUIRED_OTHERWISE):
        if name not in given:
            raise PlanFileError(node.line, f"{where}: {name} is missing", f"add {name}")
    for oneof in descriptor.oneofs:
        if message.WhichOneof(oneof.name) is None and oneof.full_name not in OPTIONAL_ONEOFS:
            names = " or ".join(field.name for field in oneof.fields)
            raise PlanFileError(node.line, f"{where}: {names} is missing", f"add {names}")


def _check_steps(draft: plan_pb2.PlanDraft, root: Node) -> None:
    if not draft.steps:
        raise PlanFileError(root.line, "the plan has no steps", "add at least one step")
    seen: set[str] = set()
    for step in draft.steps:
        if step.step_id and step.step_id in seen:
            raise PlanFileError(root.line, f"two steps have the id {step.step_id!r}", "give each step its own step_id")
        seen.add(step.step_id)


def _unknown(key: Scalar, where: str, names: Iterable[str]) -> PlanFileError:
    known = list(names)
    problem = f"{where} has no field {key.text[:80]!r}{_nearest(key.text, known)}"
    return PlanFileError(key.line, problem, f"known here: {', '.join(known)}")


def _nearest(word: str, names: Iterable[str]) -> str:
    close = get_close_matches(word[:80], list(names), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""
