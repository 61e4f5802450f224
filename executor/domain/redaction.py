"""Taking the exact values of known secrets out of bytes and text, before anything of them is kept, hashed or shown.

A value shows in more forms than its own: quoted for a URL, escaped in JSON or XML, as hexadecimal digits, as base64 in
whatever surroundings. All forms of all secrets are one regular expression over bytes. Text forms take each character
in any of its spellings, so that one form stands for all the ways in which encoders mix them; base64 has one form for
each of the three places that a value can have in a group of three bytes, without the digits that it shares with its
neighbours. Encoders break long lines: a line may end between any two digits.

Where forms overlap, their union goes: what is left never holds the rest of a value whose beginning went with another.
In a stream the same holds over the borders of chunks, whatever the chunks are.

This finds what a program prints without meaning to. A program that wants to hide a value reverses it, and is not found.
"""

import base64
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

LEAST_BYTES: Final = 8
"""Shorter values are no secrets: they stand everywhere."""
MOST_BYTES: Final = 4096
LEAST_DIFFERENT: Final = 4
"""What has fewer different bytes is a placeholder, and stands everywhere, too."""
LEAST_LINE_BYTES: Final = 32
"""Of a value of several lines, such as a key, each line from this length on goes by itself, too."""

_LOOK_AHEAD: Final = 6
_ALIGNMENTS: Final = 3
_MOST_COMPILED: Final = 600
_ASCII: Final = 128
_XML: Final = {
    "&": ("&amp;", "&#38;", "&#x26;"),
    "<": ("&lt;", "&#60;", "&#x3c;"),
    ">": ("&gt;", "&#62;", "&#x3e;"),
    '"': ("&quot;", "&#34;", "&#x22;"),
    "'": ("&apos;", "&#39;", "&#x27;"),
}

Spelling = tuple[frozenset[int], ...]
"""One way to write one unit of a value: for each byte those that it may be."""
Unit = tuple[Spelling, ...]
"""All ways to write one unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret whose value is known; no rendering of it shows the value."""

    name: str
    value: bytes = field(repr=False)


class _Form:
    """One form of a secret's value: for each unit, in order, the ways to write it."""

    __slots__ = ("_pattern", "_plain", "longest", "name", "units")

    def __init__(self, name: str, units: tuple[Unit, ...]) -> None:
        self.name = name
        self.units = units
        self.longest = sum(max(map(len, unit)) for unit in units)
        self._plain = len(units) <= _MOST_COMPILED and all(map(_tells_at_once, units))
        self._pattern: re.Pattern[bytes] | None = None

    def end(self, data: bytes, start: int) -> int:
        """Return where the form that begins at a place ends, or -1 where it does not begin there."""
        if not self._plain:
            return self._walked(data, start)
        if self._pattern is None:  # most forms never begin anywhere
            self._pattern = re.compile(b"".join(map(_unit_pattern, self.units)), re.DOTALL)
        found = self._pattern.match(data, start)
        return -1 if found is None else found.end()

    def may_begin(self, data: bytes, start: int) -> bool:
        """Tell whether the form begins at a place, as far as the bytes go."""
        ends = {start}
        for unit in self.units:
            if any(_runs_out(data, at, one) for at in ends for one in unit):
                return True
            ends = _after(data, ends, unit)
            if not ends:
                return False
        return True

    def _walked(self, data: bytes, start: int) -> int:
        """As `end`, in a time that no value can make explode."""
        ends = {start}
        for unit in self.units:
            ends = _after(data, ends, unit)
            if not ends:
                return -1
        return max(ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One form of one secret, in some bytes."""

    name: str
    start: int
    end: int


class Redactor:
    """Takes the values of some secrets out of whatever it is given; without secrets it costs nothing.

    Immutable, for any number of threads.
    """

    __slots__ = ("_beginning", "_forms", "_longest", "_markers", "_names")

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        forms = [form for secret in dict.fromkeys(secrets) for form in _forms(secret)]
        self._names = frozenset(form.name for form in forms)
        self._longest = max((form.longest for form in forms), default=0)
        self._forms = _by_first_byte(forms)
        self._beginning = _beginning(self._forms) if forms else None
        self._markers = {name: self._marker(name) for name in self._names}

    def __bool__(self) -> bool:
        return self._beginning is not None

    def __repr__(self) -> str:
        return f"Redactor(<{len(self._names)} secrets>)"

    @property
    def overlap(self) -> int:
        """How many bytes on either side of a part must be known to tell whether a form reaches into it."""
        return max(0, self._longest - 1)

    def data(self, data: bytes) -> bytes:
        """Return bytes with a marker in the place of each form; the very same object where there is none."""
        return data if self._beginning is None else self.window(data, 0, len(data))

    def text(self, text: str) -> str:
        """Return a text with a marker in the place of each form."""
        if self._beginning is None:
            return text
        raw = text.encode("utf-8", "surrogatepass")
        told = self.data(raw)
        return text if told is raw else told.decode("utf-8", "surrogatepass")

    def window(self, data: bytes, start: int, end: int) -> bytes:
        """Return a part of some bytes, redacted by all of them: a form that reaches over a border goes as a whole."""
        kept: list[bytes] = []
        position = start
        for first, last, marker in self.spans(data):
            if last <= start or first >= end:
                continue
            kept += (data[position : max(first, position)], marker)
            position = last
        return b"".join((*kept, data[position:end])) if kept else data[start:end]

    def find(self, data: bytes) -> str | None:
        """Return the name of a secret that bytes hold in any form, or None."""
        found = self._next(data, 0)
        return None if found is None else found.name

    def find_in(self, blocks: Iterable[bytes]) -> str | None:
        """Return the name of a secret that consecutive blocks hold, over their borders too, or None."""
        kept = b""
        for block in blocks:
            data = kept + block
            name = self.find(data)
            if name is not None:
                return name
            kept = data[max(0, len(data) - self.overlap) :]
        return None

    def stream(self) -> "Stream":
        """Return what redacts a stream chunk by chunk."""
        return Stream(self)

    def settled(self, data: bytes) -> int:
        """Return up to where no form can begin that has not ended in these bytes."""
        candidates = self._candidates(data, max(0, len(data) - self.overlap))
        return next((start for start in candidates if self._may_begin(data, start)), len(data))

    def spans(self, data: bytes, covered: int = 0, until: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Yield (start, end, marker) of the unions of forms, in order.

        Args:
            data: what is looked at.
            covered: up to where a union reaches that began before these bytes; it comes first, without a marker.
            until: up to where forms may begin; all of the data where it is None.
        """
        last = len(data) if until is None else until
        start, end, marker = 0, covered, b""
        found = self._next(data, 0)
        while found is not None and found.start < last:
            if found.start < end:
                end = max(end, found.end)
            else:
                if end > start:
                    yield start, end, marker
                start, end, marker = found.start, found.end, self._markers[found.name]
            found = self._next(data, found.start + 1)
        if end > start:
            yield start, end, marker

    def _next(self, data: bytes, position: int) -> _Found | None:
        """Return the first place from a position on where a form begins, and the longest that does."""
        return next(filter(None, (self._at(data, start) for start in self._candidates(data, position))), None)

    def _candidates(self, data: bytes, position: int) -> Iterator[int]:
        """Yield the places from a position on where a form may begin, judged by its first bytes."""
        while self._beginning is not None:
            found = self._beginning.search(data, position)
            if found is None:
                return
            yield found.start()
            position = found.start() + 1

    def _may_begin(self, data: bytes, start: int) -> bool:
        return any(form.may_begin(data, start) for form in self._forms.get(data[start], ()))

    def _at(self, data: bytes, start: int) -> _Found | None:
        ends = ((form.end(data, start), form.name) for form in self._forms.get(data[start], ()))
        end, name = max(ends, key=lambda one: one[0], default=(-1, ""))
        return None if end < 0 else _Found(name=name, start=start, end=end)

    def _marker(self, name: str) -> bytes:
        """Return what shows in the place of a secret; a marker may hold no secret itself."""
        offers = (f"[secret {name}]".encode(), b"[secret]", b"[...]")
        return next((one for one in offers if self.find(one) is None), b"")


class Stream:
    """Redacts one stream. What may be the beginning of a form waits for the next chunk."""

    __slots__ = ("_covered", "_kept", "_redactor")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._kept = b""
        self._covered = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return what can be told by now."""
        if not self._redactor:
            return chunk
        data = self._kept + chunk
        return self._told(data, self._redactor.settled(data))

    def end(self) -> bytes:
        """Return the rest."""
        return self._told(self._kept, len(self._kept))

    def _told(self, data: bytes, settled: int) -> bytes:
        kept: list[bytes] = []
        position = 0
        for first, last, marker in self._redactor.spans(data, self._covered, settled):
            kept += (data[position:first], marker)
            position = last
        self._kept, self._covered = data[settled:], max(0, position - settled)
        return b"".join((*kept, data[position:settled])) if kept else data[:settled]


def _forms(secret: Secret) -> Iterator[_Form]:
    """Yield every form of a secret's value."""
    value = secret.value
    lines = [line for line in value.splitlines() if _tells(line)]
    every = [_text_units(one) for one in dict.fromkeys((value, *lines))]
    every += [_hex_units(value), *(_base64_units(value, offset) for offset in range(_ALIGNMENTS))]
    for units in every:
        yield _Form(secret.name, units)


def _tells(line: bytes) -> bool:
    """Tell whether a line of a secret is one by itself: long, and neither words nor a frame such as `-----BEGIN`."""
    return len(line) >= LEAST_LINE_BYTES and not line.startswith(b"-----") and b" " not in line.strip()


def _text_units(value: bytes) -> tuple[Unit, ...]:
    try:
        return tuple(_character(character) for character in value.decode())
    except UnicodeDecodeError:
        return tuple(_byte(byte) for byte in value)


def _character(character: str) -> Unit:
    if character.isascii() and character.isalnum():
        return (_exactly(character.encode()),)
    units = character.encode("utf-16-be").hex()
    escaped = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    said = [character, "".join(f"%{byte:02x}" for byte in character.encode()), escaped]
    said += [json.dumps(character)[1:-1], *_XML.get(character, ())]
    said += ["+"] if character == " " else []
    said += ["\\/"] if character == "/" else []
    return tuple(dict.fromkeys(_any_case(one) if one != character else _exactly(one.encode()) for one in said))


def _byte(byte: int) -> Unit:
    if byte < _ASCII:
        return _character(chr(byte))
    return (_exactly(bytes((byte,))), _any_case(f"%{byte:02x}"))


def _hex_units(value: bytes) -> tuple[Unit, ...]:
    """Two digits for each byte; between bytes a blank, a colon or the end of a line."""
    return _separated([_any_case(f"{byte:02x}") for byte in value], b" ", b":")


def _base64_units(value: bytes, offset: int) -> tuple[Unit, ...]:
    """The digits that the value alone decides, where some bytes stand before it in its group of three."""
    digits = base64.b64encode(bytes(offset) + value)
    first, last = -(-8 * offset // 6), 8 * (offset + len(value)) // 6
    other = {ord("+"): b"+-", ord("/"): b"/_"}
    return _separated([(frozenset(other.get(digit, bytes((digit,)))),) for digit in digits[first:last]])


def _separated(units: list[Spelling], *also: bytes) -> tuple[Unit, ...]:
    """Let a line end, or something else stand, between two units."""
    between = tuple(map(_exactly, (b"\n", b"\r\n", *also)))
    first, *others = units
    return ((first,), *((unit, *((*gap, *unit) for gap in between)) for unit in others))


def _exactly(text: bytes) -> Spelling:
    return tuple(frozenset((byte,)) for byte in text)


def _any_case(text: str) -> Spelling:
    return tuple(frozenset((one.lower() + one.upper()).encode()) for one in text)


def _after(data: bytes, starts: Collection[int], unit: Unit) -> set[int]:
    """Return where a unit ends that begins at one of some places."""
    return {at + len(one) for at in starts for one in unit if _reads(data, at, one)}


def _reads(data: bytes, at: int, spelling: Spelling) -> bool:
    return at + len(spelling) <= len(data) and all(map(_holds, spelling, data[at : at + len(spelling)]))


def _runs_out(data: bytes, at: int, spelling: Spelling) -> bool:
    """Tell whether the bytes end in the middle of a spelling."""
    return at + len(spelling) > len(data) and all(map(_holds, spelling, data[at:]))


def _holds(choice: frozenset[int], byte: int) -> bool:
    return byte in choice


def _by_first_byte(forms: Iterable[_Form]) -> dict[int, tuple[_Form, ...]]:
    found: dict[int, list[_Form]] = {}
    for form in forms:
        for byte in sorted(set().union(*(spelling[0] for spelling in form.units[0]))):
            found.setdefault(byte, []).append(form)
    return {byte: tuple(kept) for byte, kept in found.items()}


def _beginning(forms: Mapping[int, Sequence[_Form]]) -> re.Pattern[bytes]:
    """Return an expression for every place where a form may begin.

    It looks at a few bytes, or at all that are there before the end. First bytes come first, so that most places cost
    one look.
    """
    branches = []
    for byte, kept in sorted(forms.items()):
        spelled = {one[1:] for form in kept for one in _first_bytes(form.units) if byte in one[0]}
        branches.append(re.escape(bytes((byte,))) + _nested(spelled))
    return re.compile(b"|".join(branches), re.DOTALL)


def _nested(spelled: Iterable[Spelling]) -> bytes:
    """Return a pattern for what may follow: one of some spellings, or as much of it as there is."""
    after: dict[frozenset[int], set[Spelling]] = {}
    for one in spelled:
        if one:
            after.setdefault(one[0], set()).add(one[1:])
    branches = [_class_pattern(choice) + _nested(rest) for choice, rest in sorted(after.items(), key=_order)]
    return b"(?:" + b"|".join((*branches, b"\\Z")) + b")" if branches else b""


def _order(entry: tuple[frozenset[int], set[Spelling]]) -> list[int]:
    return sorted(entry[0])


def _tells_at_once(unit: Unit) -> bool:
    """Tell whether no spelling of a unit is the beginning of another, so that an expression never has to go back."""
    return not any(_begins(one, other) for one in unit for other in unit if one is not other)


def _begins(one: Spelling, other: Spelling) -> bool:
    return len(one) <= len(other) and all(mine & its for mine, its in zip(one, other, strict=False))


def _unit_pattern(unit: Unit) -> bytes:
    spellings = [b"".join(map(_class_pattern, spelling)) for spelling in unit]
    return spellings[0] if len(spellings) == 1 else b"(?:" + b"|".join(spellings) + b")"


def _class_pattern(choice: Collection[int]) -> bytes:
    if len(choice) == 1:
        return re.escape(bytes(choice))
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(choice)) + b"]"


def _first_bytes(units: Iterable[Unit]) -> set[Spelling]:
    """Return the first bytes of a form in all spellings."""
    beginnings: set[Spelling] = {()}
    for unit in units:
        if all(len(one) >= _LOOK_AHEAD for one in beginnings):
            break
        beginnings = {(*one, *spelling)[:_LOOK_AHEAD] for one in beginnings for spelling in unit}
    return beginnings


NO_SECRETS: Final = Redactor()
"""Where nothing is secret."""


def no_secrets() -> Redactor:
    """Return the redactor of who has no secrets."""
    return NO_SECRETS
