"""Text that is shown to the person who decides hides nothing."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.safe_text import path_bytes, path_fields, safe_block, safe_line, shown_argv, shown_path

pytestmark = pytest.mark.quick

HIDING = {
    "\x1b[2K\rall fine": "\\x1b[2K\\x0dall fine",
    "a\u202egnp.exe": "a\\u{202e}gnp.exe",
    "a\u200bb": "a\\u{200b}b",
    "a\u00a0b": "a\\xa0b",
    "a\u3000b": "a\\u{3000}b",
    "a\u3164b": "a\\u{3164}b",
    "a\U000e0100b": "a\\u{e0100}b",
    "a\ufe0fb": "a\\u{fe0f}b",
    "a\nb": "a\\x0ab",
    "\u2028": "\\u{2028}",
    "naïve 日本": "naïve 日本",
}


@pytest.mark.parametrize(("text", "shown"), HIDING.items(), ids=[ascii(text) for text in HIDING])
def test_hidden_characters_are_spelt_out(text: str, shown: str) -> None:
    """Escape sequences, reversed reading, no width and odd blanks are seen; ordinary letters stay."""
    assert safe_line(text) == shown


def test_a_block_keeps_its_lines_and_tabs_only() -> None:
    """A line feed and a tab stay, a carriage return does not."""
    assert safe_block("a\n\tb\rc") == "a\n\tb\\x0dc"


@given(st.text())
def test_what_is_shown_holds_no_control_or_format_character(text: str) -> None:
    """Whatever comes in, one line of visible characters comes out."""
    assert all(unicodedata.category(character)[0] != "C" for character in safe_line(text))


@given(st.binary(max_size=40))
def test_a_path_survives_its_contract_form(raw: bytes) -> None:
    """Names are bytes: text where they are UTF-8, bytes beside the text where they are not."""
    text, kept = path_fields(raw)
    assert path_bytes(text, kept) == raw
    assert shown_path(raw) == text


@pytest.mark.parametrize(("text", "raw"), [("a", b"a"), ("b", b"\xff"), ("\\xff", b"\xfe")])
def test_a_path_whose_two_forms_differ_is_refused(text: str, raw: bytes) -> None:
    """A person must not read one name while another is acted on."""
    with pytest.raises(ValueError, match="do not agree"):
        path_bytes(text, raw)


def test_arguments_are_shown_as_a_list() -> None:
    """A blank inside an argument can not be taken for two arguments."""
    assert shown_argv(["rm", "-r", "a b\u202e"]) == '["rm", "-r", "a b\\\\u{202e}"]'
