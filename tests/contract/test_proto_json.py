"""What writes and reads sealed documents agrees with the protobuf library about every message."""

import contextlib
import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from gonogo import sealing
from gonogo.proto_json import OPTIONAL_ONEOFS, builder, renderer
from gonogo.v1 import evidence_pb2, plan_pb2

pytestmark = pytest.mark.quick

TYPES = [plan_pb2.Plan, evidence_pb2.Report, evidence_pb2.Approval, evidence_pb2.Receipt, evidence_pb2.Refusal]
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: st.text(st.characters(codec="utf-8"), max_size=8),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
}
TIMES = st.builds(
    Timestamp,
    seconds=st.integers(-62_135_596_800, 253_402_300_799),
    nanos=st.sampled_from([0, 1, 999_999_999, 120_000_000, 123_456_000, 1_000]) | st.integers(0, 999_999_999),
)


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)
    if field.enum_type is not None:
        one: st.SearchStrategy[Any] = st.sampled_from(sorted(field.enum_type.values_by_number))
    elif field.message_type is not None:
        one = messages(field.message_type)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        one = st.binary(max_size=8)
    else:
        one = SCALARS[field.cpp_type]
    return st.lists(one, max_size=2) if field.is_repeated else one


def messages(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    """Return any message of a type, one field of each oneof set."""
    if descriptor.full_name == Timestamp.DESCRIPTOR.full_name:
        return TIMES

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        chosen = {field.name for field in descriptor.fields if field.containing_oneof is None and draw(st.booleans())}
        for oneof in descriptor.oneofs:
            names = [field.name for field in oneof.fields]
            chosen.add(draw(st.sampled_from([*names, ""] if oneof.full_name in OPTIONAL_ONEOFS else names)))
        fields = {name: draw(values(descriptor.fields_by_name[name])) for name in chosen - {""}}
        return GetMessageClass(descriptor)(**fields)

    return build()


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.DESCRIPTOR.name)
@given(data=st.data())
def test_a_message_is_rendered_as_the_library_renders_it_and_reads_back(kind: Any, data: st.DataObject) -> None:
    """The same JSON value, and from it the same message, by the strict reader too."""
    message = data.draw(messages(kind.DESCRIPTOR))
    value = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert renderer(kind.DESCRIPTOR)(message) == value
    assert builder(kind.DESCRIPTOR)(value) == message
    assert sealing.open_sealed(sealing.seal(message), kind) == message


@given(text=st.text(alphabet="0123456789-+:.TZ _", max_size=32))
def test_a_time_has_one_text(text: str) -> None:
    """Whatever text reads as a time is the text that the time is written as."""
    body = json.dumps({"created_at": text}, separators=(",", ":")).encode()
    with contextlib.suppress(sealing.SealingError):
        assert sealing.seal(sealing.open_sealed(body, plan_pb2.Plan)) == body


@pytest.mark.parametrize("text", ["2026-11-20T09:25:52.-12345678Z", "2026-11-20T09:25:52.1Z", "2026-11-20 09:25:52Z"])
def test_an_odd_time_is_refused(text: str) -> None:
    """A sign in the fraction, a short fraction, a blank for the T."""
    with pytest.raises(sealing.SealingError):
        sealing.open_sealed(json.dumps({"created_at": text}).encode(), plan_pb2.Plan)
