"""Text that is safe to show to the person who decides.

Whoever writes a plan, a file name or a program's output may try to hide a part of it from the approver: with control
and escape sequences, characters that reverse the reading direction, characters of no width, or unusual blanks. Every
face of gonogo shows such text through this module, so that each character either is seen or is spelt out.
"""

import json
import unicodedata
from collections.abc import Sequence

# Cc control, Cf format (bidi, zero width), Zl/Zp line separators, Co private, Cs surrogate, Cn unassigned.
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"})
# Assigned, but drawn as nothing: combining grapheme joiner, Hangul and Khmer fillers, variation selectors.
HIDDEN_RANGES = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0000, 0xE0FFF),
)


def is_hidden(character: str) -> bool:
    """Tell whether a reader could overlook the character or be misled by it."""
    if " " <= character <= "~":
        return False
    category = unicodedata.category(character)
    if category in HIDDEN_CATEGORIES or category == "Zs":
        return True
    code = ord(character)
    return any(low <= code <= high for low, high in HIDDEN_RANGES)


def safe_line(text: str) -> str:
    """Return the text on one line, every hidden character spelt out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelt(character) if is_hidden(character) else character for character in text)


def safe_block(text: str) -> str:
    """Return text of several lines; line feeds and tabs stay, every other hidden character is spelt out."""
    return "\n".join("\t".join(safe_line(cell) for cell in line.split("\t")) for line in text.split("\n"))


def shown_path(raw: bytes) -> str:
    r"""Return a path as text; bytes that are not UTF-8 are shown as ``\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


def path_fields(raw: bytes) -> tuple[str, bytes]:
    """Return a path as a contract message carries it: its text, and its bytes only where they are not UTF-8."""
    try:
        return raw.decode("utf-8"), b""
    except UnicodeDecodeError:
        return shown_path(raw), raw


def path_bytes(text: str, raw: bytes) -> bytes:
    """Return the bytes of a path that a contract message carries.

    Raises:
        ValueError: the text is not how the bytes are shown, or the bytes needed no field of their own.
    """
    if not raw:
        return text.encode()
    if path_fields(raw) != (text, raw):
        message = "a path's text and bytes do not agree"
        raise ValueError(message)
    return raw


def shown_argv(argv: Sequence[str]) -> str:
    """Return a program and its arguments as a list, never as a joined line."""
    return "[" + ", ".join(json.dumps(safe_line(word), ensure_ascii=False) for word in argv) + "]"


def excerpt(text: str, limit: int) -> str:
    """Return at most `limit` characters and say what was left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit} more characters)"


def _spelt(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:  # noqa: PLR2004 - the two hex digits that Latin-1 needs
        return f"\\x{code:02x}"
    return f"\\u{{{code:x}}}"
