"""Frozen values ↔ contract messages ↔ ProtoJSON, driven by tables that are made once per class.

A table is built from a dataclass and the descriptor of the message that mirrors it, and building it fails where the two
differ: a field that only one of them has, a variant of a oneof, a name of an enum. So there is no default arm to fall
into. After that, mapping an object is a walk over its table and looks nothing up.

ProtoJSON is written from the value itself, in the very form that `json_format` gives the message with
`preserving_proto_field_name`; a contract test holds the two together. Reading refuses what the contract does not know.
"""

import base64
import binascii
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from orchestrator.adapters.contract_errors import contract_error
from orchestrator.adapters.times import time_from_proto, time_of_text, time_parts, time_text

Json: TypeAlias = Any

_SCALARS: Final[Mapping[type, object]] = {str: "", int: 0, bool: False}

D = TypeVar("D")


class _Field(Protocol):
    """How one field goes each way. JSON `None` stands for: not written.

    `to_message` returns what the message's constructor takes for the field.
    """

    @property
    def name(self) -> str: ...
    def to_message(self, value: Any) -> Any: ...
    def from_message(self, message: Any) -> Any: ...
    def to_json(self, value: Any) -> Json: ...
    def from_json(self, written: Json) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Scalar:
    name: str
    type: type
    default: object

    def to_message(self, value: Any) -> Any:
        return value

    def from_message(self, message: Any) -> Any:
        return getattr(message, self.name)

    def to_json(self, value: Any) -> Json:
        return value if value != self.default else None

    def from_json(self, written: Json) -> Any:
        if written is None:
            return self.default
        return _typed(self.name, written, self.type)


@dataclass(frozen=True, slots=True)
class _Present:
    """Text or bytes that may be absent, and then differ from being empty."""

    name: str
    type: type

    def to_message(self, value: Any) -> Any:
        return value

    def from_message(self, message: Any) -> Any:
        return getattr(message, self.name) if message.HasField(self.name) else None

    def to_json(self, value: Any) -> Json:
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value

    def from_json(self, written: Json) -> Any:
        if written is None:
            return None
        text = _typed(self.name, written, str)
        return _unbase64(self.name, text) if self.type is bytes else text


@dataclass(frozen=True, slots=True)
class _Bytes:
    name: str

    def to_message(self, value: Any) -> Any:
        return value

    def from_message(self, message: Any) -> Any:
        return getattr(message, self.name)

    def to_json(self, value: Any) -> Json:
        return base64.b64encode(value).decode() or None

    def from_json(self, written: Json) -> Any:
        return b"" if written is None else _unbase64(self.name, _typed(self.name, written, str))


@dataclass(frozen=True, slots=True)
class _Enum:
    name: str
    optional: bool
    numbers: Mapping[StrEnum, int]
    names: Mapping[StrEnum, str]
    by_number: Mapping[int, StrEnum]
    by_name: Mapping[str, StrEnum]

    def to_message(self, value: Any) -> Any:
        return 0 if value is None else self.numbers[value]

    def from_message(self, message: Any) -> Any:
        return self._known(self.by_number, getattr(message, self.name) or None)

    def by_number_of(self, number: int) -> StrEnum:
        """Return what one number of a list stands for; there is no number for nothing."""
        value = self.by_number.get(number)
        if value is None:
            raise contract_error(f"{self.name}: {number} is not known")
        return value

    def to_json(self, value: Any) -> Json:
        return None if value is None else self.names[value]

    def from_json(self, written: Json) -> Any:
        return self._known(self.by_name, written)

    def _known(self, table: Mapping[Any, StrEnum], key: object) -> StrEnum | None:
        if key is None and self.optional:
            return None
        value = table.get(key)
        if value is None:
            raise contract_error(f"{self.name}: {key!r} is not known" if key is not None else f"{self.name} is not set")
        return value


@dataclass(frozen=True, slots=True)
class _Time:
    name: str
    optional: bool

    def to_message(self, value: Any) -> Any:
        return None if value is None else time_parts(value)

    def from_message(self, message: Any) -> Any:
        if message.HasField(self.name):
            return time_from_proto(getattr(message, self.name))
        return self._absent()

    def to_json(self, value: Any) -> Json:
        return None if value is None else time_text(value)

    def from_json(self, written: Json) -> Any:
        return self._absent() if written is None else time_of_text(_typed(self.name, written, str))

    def _absent(self) -> None:
        if not self.optional:
            raise contract_error(f"{self.name} is not set")


@dataclass(frozen=True, slots=True)
class _ScalarList:
    name: str
    type: type

    def to_message(self, value: Any) -> Any:
        return value

    def from_message(self, message: Any) -> Any:
        return tuple(getattr(message, self.name))

    def to_json(self, value: Any) -> Json:
        return list(value) or None

    def from_json(self, written: Json) -> Any:
        return tuple(_typed(self.name, item, self.type) for item in _typed(self.name, written or [], list))


@dataclass(frozen=True, slots=True)
class _EnumList:
    name: str
    item: _Enum

    def to_message(self, value: Any) -> Any:
        return [self.item.numbers[item] for item in value]

    def from_message(self, message: Any) -> Any:
        return tuple(self.item.by_number_of(number) for number in getattr(message, self.name))

    def to_json(self, value: Any) -> Json:
        return [self.item.names[item] for item in value] or None

    def from_json(self, written: Json) -> Any:
        return tuple(self.item.from_json(name) for name in _typed(self.name, written or [], list))


@dataclass(frozen=True, slots=True)
class _TextMap:
    name: str

    def to_message(self, value: Any) -> Any:
        return value

    def from_message(self, message: Any) -> Any:
        return dict(getattr(message, self.name))

    def to_json(self, value: Any) -> Json:
        return dict(value) or None

    def from_json(self, written: Json) -> Any:
        pairs = _typed(self.name, written or {}, dict)
        return {key: _typed(self.name, value, str) for key, value in pairs.items()}


@dataclass(frozen=True, slots=True)
class _Message:
    name: str
    optional: bool
    map: "MessageMap[Any]"

    def to_message(self, value: Any) -> Any:
        return None if value is None else self.map.to_parts(value)

    def from_message(self, message: Any) -> Any:
        return self.map.from_message(getattr(message, self.name)) if message.HasField(self.name) else self._absent()

    def to_json(self, value: Any) -> Json:
        return None if value is None else self.map.to_json(value)

    def from_json(self, written: Json) -> Any:
        return self._absent() if written is None else self.map.from_json(written)

    def _absent(self) -> None:
        if not self.optional:
            raise contract_error(f"{self.name} is not set")


@dataclass(frozen=True, slots=True)
class _MessageList:
    name: str
    map: "MessageMap[Any]"

    def to_message(self, value: Any) -> Any:
        return [self.map.to_parts(item) for item in value]

    def from_message(self, message: Any) -> Any:
        return tuple(self.map.from_message(item) for item in getattr(message, self.name))

    def to_json(self, value: Any) -> Json:
        return [self.map.to_json(item) for item in value] or None

    def from_json(self, written: Json) -> Any:
        return tuple(self.map.from_json(item) for item in _typed(self.name, written or [], list))


@dataclass(frozen=True, slots=True)
class _Variants:
    """A oneof of messages, held by one field of a union of classes."""

    name: str
    by_class: Mapping[type, tuple[str, "MessageMap[Any]"]]
    by_name: Mapping[str, "MessageMap[Any]"]

    def from_message(self, message: Any) -> Any:
        variant = message.WhichOneof(self.name)
        if variant is None:
            raise contract_error(f"{self.name}: none of its kinds is set, or one that is not known")
        return self.by_name[variant].from_message(getattr(message, variant))


class MessageMap(Generic[D]):
    """The table of one class and its message. Get one from `message_map`."""

    def __init__(self, value_class: type[D], message_class: type[Message], inner: frozenset[str]) -> None:
        self.value_class = value_class
        self.message_class = message_class
        self._inner = inner
        self._fields: list[_Field] = []
        self._variants: _Variants | None = None
        descriptor: Any = message_class.DESCRIPTOR  # one of two types of the library's, alike in use
        self._build(descriptor)
        self._names = {field.name for field in self._fields}
        # Most fields are plain texts and numbers, which are the same on both sides: None spares them a call.
        self._out: Final = [
            (field.name, None if isinstance(field, _Scalar) else field.to_message) for field in self._fields
        ]
        self._in: Final = [
            (field.name, None if isinstance(field, _Scalar) else field.from_message) for field in self._fields
        ]
        self._json: Final = [
            (field.name, None, field.default) if isinstance(field, _Scalar) else (field.name, field.to_json, None)
            for field in self._fields
        ]

    def to_message(self, value: D) -> Any:
        """Return the message that says what the value says."""
        return self.message_class(**self.to_parts(value))

    def to_parts(self, value: D) -> dict[str, Any]:
        """Return what the message is made of, dictionaries for what is nested in it.

        A message is made of these in one go; making each nested one first and copying it takes twice as long.
        """
        written = {
            name: getattr(value, name) if convert is None else convert(getattr(value, name))
            for name, convert in self._out
        }
        if self._variants is not None:
            variant = getattr(value, self._variants.name)
            name, inner = self._variants.by_class[type(variant)]
            written[name] = inner.to_parts(variant)
        return written

    def from_message(self, message: Any) -> D:
        """Return the value that a message stands for.

        Raises:
            ContractError: an enum's number is not known, or what must be set is not.
        """
        values = {name: getattr(message, name) if read is None else read(message) for name, read in self._in}
        if self._variants is not None:
            values[self._variants.name] = self._variants.from_message(message)
        return self.value_class(**values)

    def to_json(self, value: D) -> dict[str, Json]:
        """Return the value's ProtoJSON."""
        written = {}
        for name, convert, default in self._json:
            item = getattr(value, name)
            if convert is not None:
                item = convert(item)
            if item != default:
                written[name] = item
        if self._variants is not None:
            variant = getattr(value, self._variants.name)
            name, inner = self._variants.by_class[type(variant)]
            written[name] = inner.to_json(variant)
        return written

    def from_json(self, written: Json) -> D:
        """Return the value that ProtoJSON stands for.

        Raises:
            ContractError: a key is not known, a type is not the field's, or what must be set is not.
        """
        keys = set(_typed(self.value_class.__name__, written, dict))
        values = {field.name: field.from_json(written.get(field.name)) for field in self._fields}
        unknown = keys - self._names
        if self._variants is not None:
            variants = unknown & self._variants.by_name.keys()
            if len(variants) != 1:
                raise contract_error(f"{self._variants.name}: exactly one kind must be set")
            variant = variants.pop()
            unknown.discard(variant)
            values[self._variants.name] = self._variants.by_name[variant].from_json(written[variant])
        if unknown:
            raise contract_error(f"{self.value_class.__name__}: unknown fields {sorted(unknown)}")
        return self.value_class(**values)

    def _build(self, descriptor: Descriptor) -> None:
        hints = get_type_hints(self.value_class)
        members = {member.name for oneof in descriptor.oneofs if oneof.name in hints for member in oneof.fields}
        names = [field.name for field in fields(self.value_class) if field.name not in self._inner]  # type: ignore[arg-type]  # always a dataclass
        plain = {name for name in names if name not in descriptor.oneofs_by_name}
        missing = plain ^ ({field.name for field in descriptor.fields} - members - self._inner)
        if missing:
            raise contract_error(f"{self.value_class.__name__} and {descriptor.full_name} differ in {sorted(missing)}")
        for name in names:
            if name in plain:
                self._fields.append(_field(descriptor.fields_by_name[name], hints[name]))
            else:
                self._variants = _variants(descriptor, name, hints[name])


def message_map(
    value_class: type[D], message_class: type[Message], inner: frozenset[str] = frozenset()
) -> MessageMap[D]:
    """Return the table of a class and its message; it is built when it is first asked for.

    Args:
        value_class: a frozen dataclass.
        message_class: the message that it mirrors.
        inner: fields that the table leaves out: whoever asks for it maps them, or the message does not have them.

    Raises:
        ContractError: the class and the message differ.
    """
    key: Any = (value_class, message_class)  # classes are hashable, which the library's stubs deny
    table: MessageMap[D] = _built(*key, inner)
    return table


@cache
def _built(value_class: Any, message_class: Any, inner: frozenset[str]) -> MessageMap[Any]:
    return MessageMap(value_class, message_class, inner)


def _field(descriptor: FieldDescriptor, hint: Any) -> _Field:
    hint, optional = _optional(hint)
    if get_origin(hint) is tuple:
        return _list_field(descriptor, get_args(hint)[0])
    if hint == Mapping[str, str]:
        return _TextMap(descriptor.name)
    if is_dataclass(hint):
        return _Message(descriptor.name, optional, _nested(descriptor, hint))
    return _plain_field(descriptor, hint, optional=optional)


def _plain_field(descriptor: FieldDescriptor, hint: Any, *, optional: bool) -> _Field:
    if hint is datetime:
        return _Time(descriptor.name, optional)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum(descriptor, hint, optional=optional)
    if optional and hint in {str, bytes}:
        return _Present(descriptor.name, hint)
    if hint is bytes:
        return _Bytes(descriptor.name)
    if hint in _SCALARS:
        return _Scalar(descriptor.name, hint, _SCALARS[hint])
    raise contract_error(f"{descriptor.full_name}: no way to map {hint}")


def _list_field(descriptor: FieldDescriptor, item: Any) -> _Field:
    if is_dataclass(item):
        return _MessageList(descriptor.name, _nested(descriptor, item))
    if isinstance(item, type) and issubclass(item, StrEnum):
        return _EnumList(descriptor.name, _enum(descriptor, item, optional=False))
    if item in {str, int}:
        return _ScalarList(descriptor.name, item)
    raise contract_error(f"{descriptor.full_name}: no way to map a list of {item}")


def _nested(descriptor: FieldDescriptor, value_class: Any) -> MessageMap[Any]:
    if descriptor.message_type is None:
        raise contract_error(f"{descriptor.full_name} is no message")
    return message_map(value_class, GetMessageClass(descriptor.message_type))


def _enum(descriptor: FieldDescriptor, value_class: type[StrEnum], *, optional: bool) -> _Enum:
    enum: EnumDescriptor | None = descriptor.enum_type
    if enum is None:
        raise contract_error(f"{descriptor.full_name} is no enum")
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    numbers = {value.name.removeprefix(prefix): value.number for value in enum.values[1:]}
    if numbers.keys() != {member.name for member in value_class}:
        raise contract_error(f"{value_class.__name__} and {enum.full_name} have different names")
    return _Enum(
        descriptor.name,
        optional,
        {member: numbers[member.name] for member in value_class},
        {member: prefix + member.name for member in value_class},
        {numbers[member.name]: member for member in value_class},
        {prefix + member.name: member for member in value_class},
    )


def _variants(descriptor: Descriptor, name: str, hint: Any) -> _Variants:
    members = {member.name: member for member in descriptor.oneofs_by_name[name].fields}
    classes = {_snake_case(variant.__name__): variant for variant in get_args(hint)}
    if members.keys() != classes.keys():
        raise contract_error(f"{descriptor.full_name}.{name}: {sorted(members.keys() ^ classes.keys())} differ")
    maps = {key: _nested(members[key], variant) for key, variant in classes.items()}
    return _Variants(name, {variant: (key, maps[key]) for key, variant in classes.items()}, maps)


def _optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in {Union, types.UnionType}:
        arguments = [argument for argument in get_args(hint) if argument is not type(None)]
        if len(arguments) == 1:
            return arguments[0], True
    return hint, False


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _typed(name: str, written: Json, expected: Callable[..., Any]) -> Any:
    if type(written) is not expected:
        raise contract_error(f"{name} is not a {getattr(expected, '__name__', expected)}")
    return written


def _unbase64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise contract_error(f"{name} is not base64") from None
