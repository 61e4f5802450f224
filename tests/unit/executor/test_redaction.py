"""Taking known secrets out of bytes, text and streams."""

import base64
import binascii
import html
import json
import urllib.parse
from collections.abc import Callable

import pytest

from executor.domain.redaction import NO_SECRETS, Redactor, Secret

VALUE = "pa/ss+w&rd \"ü\" 'x' 4711~"
TOKEN = b"v3ry-s3cret-t0ken-value"

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "url path": lambda value: urllib.parse.quote(value).encode(),
    "url, nothing safe": lambda value: urllib.parse.quote(value, safe="").encode(),
    "url query": lambda value: urllib.parse.quote_plus(value).encode(),
    "url, lower case digits": lambda value: urllib.parse.quote(value, safe="").lower().encode(),
    "hex": binascii.hexlify,
    "HEX": lambda value: value.hex().upper().encode(),
    "hex with blanks": lambda value: value.hex(" ").encode(),
    "hex with colons": lambda value: value.hex(":").encode(),
    "hex in groups of two bytes": lambda value: value.hex(" ", 2).encode(),
    "hex in lines": lambda value: b"\n".join(lines(binascii.hexlify(value), 10)),
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "base64 in lines": lambda value: b"\n".join(lines(base64.b64encode(value), 7)),
    "base64 in DOS lines": lambda value: b"\r\n".join(lines(base64.b64encode(value), 7)),
    "JSON": lambda value: json.dumps(value.decode()).encode(),
    "JSON, not ASCII": lambda value: json.dumps(value.decode(), ensure_ascii=False).encode(),
    "JSON with escaped slashes": lambda value: json.dumps(value.decode()).replace("/", "\\/").encode(),
    "XML": lambda value: html.escape(value.decode()).encode(),
}


def lines(data: bytes, width: int) -> list[bytes]:
    return [data[start : start + width] for start in range(0, len(data), width)]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("value", [VALUE.encode(), TOKEN], ids=["odd", "plain"])
def test_each_form_goes_in_each_surrounding(name: str, value: bytes) -> None:
    """Whatever an encoder makes of a value by itself, it is not in the result, and a marker is."""
    redactor = Redactor([Secret(name="deploy", value=value)])
    form = ENCODERS[name](value)
    told = redactor.data(b"before " + form + b" after")
    assert form.strip(b'"') not in told
    assert b"[secret deploy]" in told
    assert told.startswith(b"before ")
    assert told.endswith(b" after")


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("after", range(4))
def test_base64_of_a_text_around_a_value_does_not_show_it(
    encode: Callable[[bytes], bytes], before: int, after: int
) -> None:
    """At each of the three alignments the digits that the value alone decides go."""
    redactor = Redactor([Secret(name="deploy", value=TOKEN)])
    told = redactor.data(encode(b"x" * before + TOKEN + b"y" * after))
    assert told.count(b"[secret deploy]") == 1
    assert len(told) < len(b"[secret deploy]") + 16


def test_a_mixture_of_spellings_is_one_value() -> None:
    """Encoders that escape other characters than each other are all understood."""
    redactor = Redactor([Secret(name="deploy", value=b"a/b c&d'e+f")])
    for form in (b"a/b%20c%26d'e%2Bf", b"a%2fb+c&amp;d%27e+f", rb"a\/b c\u0026d&#39;e+f"):
        assert redactor.data(form) == b"[secret deploy]"


def test_overlapping_secrets_leave_nothing_of_each_other() -> None:
    """The union goes: no rest of the second value is left behind the first."""
    redactor = Redactor([Secret(name="one", value=b"abcdefgh-12345"), Secret(name="two", value=b"12345-zyxwvu")])
    assert redactor.data(b"<abcdefgh-12345-zyxwvu>") == b"<[secret one]>"


def test_of_two_values_at_one_place_the_longer_goes() -> None:
    """A value that begins like another one is taken as a whole."""
    redactor = Redactor([Secret(name="short", value=b"abcdefgh"), Secret(name="long", value=b"abcdefgh-and-more")])
    assert redactor.data(b"abcdefgh-and-more abcdefgh") == b"[secret long] [secret short]"


def test_a_line_of_a_key_goes_by_itself() -> None:
    """A search shows single lines of a file; of a key none is shown, and its frame stays."""
    body = base64.b64encode(bytes(range(200)))
    value = b"-----BEGIN PRIVATE KEY-----\n" + b"\n".join(lines(body, 64)) + b"\n-----END PRIVATE KEY-----"
    redactor = Redactor([Secret(name="key", value=value)])
    assert redactor.data(lines(body, 64)[2]) == b"[secret key]"
    assert redactor.data(b"-----BEGIN PRIVATE KEY-----") == b"-----BEGIN PRIVATE KEY-----"
    assert redactor.data(value) == b"[secret key]"


def test_a_marker_never_holds_a_secret() -> None:
    """Where the secret's name is its value, another marker stands in its place."""
    redactor = Redactor([Secret(name="deploy-token", value=b"deploy-token"), Secret(name="b", value=b"[secret]")])
    assert redactor.data(b"the deploy-token is [secret]") == b"the [...] is [secret b]"


def test_a_part_is_redacted_by_what_surrounds_it() -> None:
    """A preview that ends in the middle of a value does not show its beginning, nor one that starts there its end."""
    redactor = Redactor([Secret(name="deploy", value=TOKEN)])
    data = b"0123456789" + TOKEN + b"abcdefghij"
    for start in range(len(data)):
        for end in range(start, len(data) + 1):
            told = redactor.window(data, start, end)
            assert not any(TOKEN[at : at + 4] in told.replace(b"[secret deploy]", b"") for at in range(len(TOKEN) - 4))
    assert redactor.window(data, 5, 15) == b"56789[secret deploy]"
    assert redactor.window(data, 15, 40) == b"[secret deploy]abcdefg"


def test_a_stream_is_redacted_over_every_border() -> None:
    """Cut anywhere, a stream tells what the whole would."""
    redactor = Redactor([Secret(name="deploy", value=TOKEN)])
    data = b"0123456789" + TOKEN + b"-" + base64.b64encode(TOKEN) + b"abcdefghij"
    whole = redactor.data(data)
    for cut in range(len(data) + 1):
        for second in range(cut, len(data) + 1, 7):
            stream = redactor.stream()
            parts = [stream.feed(data[:cut]), stream.feed(data[cut:second]), stream.feed(data[second:]), stream.end()]
            assert b"".join(parts) == whole


def test_a_stream_holds_back_only_what_may_be_a_secret() -> None:
    """A line that can not be the beginning of a value is told at once."""
    stream = Redactor([Secret(name="deploy", value=TOKEN)]).stream()
    assert stream.feed(b"step 1 of 9\n") == b"step 1 of 9\n"
    assert stream.feed(b"now " + TOKEN[:10]) == b"now "
    assert stream.feed(b"\n") == TOKEN[:10] + b"\n"
    assert stream.end() == b""


def test_a_search_goes_over_the_borders_of_blocks() -> None:
    """A value that two blocks of a file share is found, by its secret's name."""
    redactor = Redactor([Secret(name="deploy", value=TOKEN)])
    assert redactor.find_in([b"x" * 1000 + TOKEN[:5], TOKEN[5:8], TOKEN[8:] + b"y"]) == "deploy"
    assert redactor.find_in([b"x" * 1000 + TOKEN[:5], b" ", TOKEN[5:]]) is None


def test_without_secrets_nothing_is_touched() -> None:
    """The very same objects come back."""
    data, text = b"data" * 5, "text" * 5
    assert NO_SECRETS.data(data) is data
    assert NO_SECRETS.text(text) is text
    assert NO_SECRETS.stream().feed(data) is data
    assert NO_SECRETS.find(data) is None
    assert not NO_SECRETS


def test_no_rendering_shows_a_value() -> None:
    """Neither a secret nor a redactor tells what it holds."""
    secret = Secret(name="deploy", value=TOKEN)
    for text in (repr(secret), str(secret), f"{secret}", repr(Redactor([secret]))):
        assert "s3cret" not in text


def test_text_that_is_no_text_passes() -> None:
    """Half of a surrogate pair, as names that are not UTF-8 hold them, is no fault."""
    redactor = Redactor([Secret(name="deploy", value=TOKEN)])
    assert redactor.text("\udc80 " + TOKEN.decode()) == "\udc80 [secret deploy]"
