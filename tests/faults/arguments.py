"""Reads the arguments that strace prints: strings with their bytes, descriptors with what they stand for."""

import re
from dataclasses import dataclass

_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f", b'"': b'"', b"\\": b"\\"}
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_DESCRIPTOR = re.compile(r"^(-?\d+|AT_FDCWD)(?:<(.*)>)?$", re.DOTALL)
_RESULT = re.compile(r"\)\s+= (-?\d+|\?)(?:<([^>]*)>)?")
_PAIRS = {"{": "}", "[": "]", "<": ">"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A descriptor, and the path that it stood for."""

    number: int | None
    """None for the working directory."""
    path: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a call returned, and for a new descriptor its path."""

    value: int
    path: bytes


def split(text: str) -> tuple[tuple[str, ...], Returned]:
    """Split what follows the call's opening bracket into its arguments and what it returned."""
    found, end = _arguments(text)
    match = _RESULT.match(text, end)
    if match is None or match[1] == "?":
        return found, Returned(value=-1, path=b"")
    return found, Returned(value=int(match[1]), path=unescaped(match[2] or ""))


def string(argument: str) -> bytes:
    """Return the bytes of a string in quotes."""
    if len(argument) < len('""') or argument[0] != '"' or argument[-1] != '"':
        message = f"not a whole string: {argument[:80]}"
        raise ValueError(message)
    return unescaped(argument[1:-1])


def descriptor(argument: str) -> Descriptor:
    """Return a descriptor."""
    match = _DESCRIPTOR.match(argument)
    if match is None:
        message = f"not a descriptor: {argument[:80]}"
        raise ValueError(message)
    number = None if match[1] == "AT_FDCWD" else int(match[1])
    return Descriptor(number=number, path=unescaped(match[2] or ""))


def unescaped(text: str) -> bytes:
    """Return the bytes that strace has escaped."""
    return _ESCAPED.sub(_byte, text.encode("latin-1", "surrogateescape"))


def _byte(match: "re.Match[bytes]") -> bytes:
    told = match[1]
    if told[:1].isdigit():
        return bytes([int(told, 8)])
    return bytes.fromhex(told[1:].decode()) if told[:1] == b"x" else _ESCAPES[told]


def _arguments(text: str) -> tuple[tuple[str, ...], int]:
    """Return the arguments, and where the bracket behind them stands."""
    found: list[str] = []
    start = position = 0
    closing: list[str] = []
    while position < len(text):
        character = text[position]
        if character == '"':
            position = _end_of_string(text, position)
        elif closing and character == closing[-1]:
            closing.pop()
        elif character in _PAIRS and not (closing and closing[-1] == ">"):
            closing.append(_PAIRS[character])
        elif not closing and character in ",)":
            found.append(text[start:position].strip())
            start = position + 1
            if character == ")":
                return tuple(found), position
        position += 1
    message = f"no end of the arguments: {text[:80]}"
    raise ValueError(message)


def _end_of_string(text: str, start: int) -> int:
    position = start + 1
    while text[position] != '"':
        position += 2 if text[position] == "\\" else 1
    return position
