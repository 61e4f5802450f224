"""Whatever a secret is and wherever it stands, nothing of its forms is left; everything else stays as it was."""

import base64
import itertools
import json
import urllib.parse

from hypothesis import given, settings
from hypothesis import strategies as st

from executor.domain.redaction import LEAST_BYTES, Redactor, Secret

ANY_VALUE = st.binary(min_size=LEAST_BYTES, max_size=80)
FEW_BYTES = st.lists(st.sampled_from(list(b"ab/+ %")), min_size=LEAST_BYTES, max_size=40).map(bytes)
WORDS = st.text(min_size=LEAST_BYTES, max_size=40).map(str.encode)
VALUES = st.one_of(ANY_VALUE, FEW_BYTES, WORDS)
SURROUNDINGS = st.one_of(st.binary(max_size=60), FEW_BYTES, st.just(b""))
MARKERS = (b"[secret s]", b"[secret]", b"[...]")


def forms_of(value: bytes) -> list[bytes]:
    """Every form, made by the standard library's encoders and not by the redactor's own idea of them."""
    forms = [value, value.hex().encode(), value.hex().upper().encode()]
    forms += [urllib.parse.quote(value, safe=safe).encode() for safe in ("/", "")]
    forms += [urllib.parse.quote_plus(value).encode()]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        pass
    else:
        forms += [json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode()]
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            first, last = -(-8 * before // 6), 8 * (before + len(value)) // 6
            forms.append(encode(bytes(before) + value)[first:last])
    return forms


def chunks_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def left_of(told: bytes, form: bytes) -> bool:
    """Tell whether a form is left anywhere between the markers; a marker is nobody's secret."""
    for marker in MARKERS:
        told = told.replace(marker, b"\0\0")
    return form in told


@settings(deadline=None)
@given(value=VALUES, before=SURROUNDINGS, after=SURROUNDINGS, cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_nothing_of_any_form_is_left(value: bytes, before: bytes, after: bytes, cuts: list[int]) -> None:
    """In any surroundings, in any chunks, each form of a value goes; chunks make no difference."""
    redactor = Redactor([Secret(name="s", value=value)])
    for form in forms_of(value):
        data = before + form + after
        told = redactor.data(data)
        assert not left_of(told, form)
        stream = redactor.stream()
        assert b"".join([*map(stream.feed, chunks_of(data, cuts)), stream.end()]) == told
        assert redactor.find(data) == "s"
        assert redactor.find_in(chunks_of(data, cuts)) == "s"


@settings(deadline=None)
@given(values=st.lists(VALUES, min_size=2, max_size=5), cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_several_values_that_run_into_each_other_all_go(values: list[bytes], cuts: list[int]) -> None:
    """Of a text made of nothing but secrets no secret is left, whatever they share."""
    redactor = Redactor([Secret(name=f"s{number}", value=value) for number, value in enumerate(values)])
    data = b"".join(values)
    stream = redactor.stream()
    told = b"".join([*map(stream.feed, chunks_of(data, cuts)), stream.end()])
    assert told == redactor.data(data)
    assert len(told) <= len(values) * len(b"[secret s0]")


@settings(deadline=None)
@given(
    value=st.binary(min_size=LEAST_BYTES, max_size=40),
    data=st.binary(max_size=400),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_what_holds_no_secret_passes_byte_for_byte(value: bytes, data: bytes, cuts: list[int]) -> None:
    """Data without any form of a value comes out as it went in, whole or in chunks."""
    redactor = Redactor([Secret(name="s", value=value)])
    if redactor.find(data) is not None:
        return
    stream = redactor.stream()
    assert redactor.data(data) == data
    assert b"".join([*map(stream.feed, chunks_of(data, cuts)), stream.end()]) == data
    assert redactor.find_in(chunks_of(data, cuts)) is None
