"""No alteration of a bundle, whatever it is, is taken for the honest file, and none breaks the verifier."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.bundle_file import bundle_json, bundle_text, read_bundle
from client.errors import ClientError
from client.proving.proof import prove
from client.strict_json import strict_json
from tests.property.bounds import bounded
from tests.unit.client.proof_house import ProofHouse

HOUSE = ProofHouse()
HONEST = bundle_json(HOUSE.bundle())
TEXT = bundle_text(read_bundle(copy.deepcopy(HONEST)))
Place = tuple[Any, ...]


def places(value: Any, path: Place = ()) -> list[Place]:
    """Return the place of every value in some JSON."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in items:
        found += places(one, (*path, name))
    return found


PLACES = [place for place in places(HONEST) if place and place != ("about",)]
EVENTS_LEAF = ("logs", "executor", "entries", 4)
AWKWARD: list[Any] = [None, True, False, 0, 1, -1, 10**9, 2**70, "", "x", [], {}, [[]], "0" * 64]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**70),
    st.text(max_size=20),
    st.sampled_from([[], {}, [[]], "\ud800", "0" * 64, "sha256:" + "0" * 64, "2026-11-20T12:00:00Z"]),
)


def valid(data: object) -> bool:
    """Tell whether a file is read and everything in it holds; refusing is the only other end."""
    try:
        bundle = read_bundle(data)
    except ClientError:
        return False
    return prove(bundle, HOUSE.anchors).valid


@pytest.mark.parametrize("value", AWKWARD, ids=lambda value: repr(value)[:20])
def test_no_awkward_value_is_taken_for_the_honest_one_in_any_place(value: Any) -> None:
    """Null, numbers, and things that are empty are found wherever they stand for something else."""
    assert [place for place in PLACES if wrongly_taken(place, value)] == []


@bounded(150)
@given(st.sampled_from(PLACES), VALUES)
def test_another_value_anywhere_is_found(place: Place, value: Any) -> None:
    """Each value of the file matters: none can be replaced by another."""
    assert not wrongly_taken(place, value)


def wrongly_taken(place: Place, value: Any) -> bool:
    """Tell whether the file with another value there is taken; only what leads on to later checkpoints may go."""
    data = copy.deepcopy(HONEST)
    held: Any = data
    for step in place[:-1]:
        held = held[step]
    if type(held[place[-1]]) is type(value) and held[place[-1]] == value:
        return False
    held[place[-1]] = value
    return valid(data) and not (place[-1] == "continuity" and value == [])


def test_a_value_that_is_left_out_is_found() -> None:
    """Nothing can be left out, but what leads on to others' checkpoints, and a leaf that no document is named in."""
    for place in PLACES:
        data = copy.deepcopy(HONEST)
        held: Any = data
        for step in place[:-1]:
            held = held[step]
        del held[place[-1]]
        assert not valid(data) or "continuity" in place or place == EVENTS_LEAF, place


@bounded(150)
@given(st.integers(0, len(TEXT) - 1), st.characters(min_codepoint=32, max_codepoint=126))
def test_another_character_anywhere_is_found(position: int, character: str) -> None:
    """Whatever one other character makes of the text, it is refused, or it says the very same thing."""
    text = TEXT[:position] + character + TEXT[position + 1 :]
    try:
        data = strict_json(text.encode())
    except ValueError:
        return
    assert isinstance(data, dict)
    said = {name: value for name, value in data.items() if name != "about"}
    assert valid(data) is (said == {name: value for name, value in HONEST.items() if name != "about"})


def test_the_honest_file_is_valid() -> None:
    """What the other tests alter holds as it is."""
    assert valid(copy.deepcopy(HONEST))
    assert valid(strict_json(TEXT.encode()))


@pytest.mark.parametrize("data", [None, [], "text", 7, {}, {"format": "gonogo-bundle"}])
def test_what_is_no_bundle_is_refused(data: object) -> None:
    """Any JSON may be handed in."""
    assert not valid(data)
