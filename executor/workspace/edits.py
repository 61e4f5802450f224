"""Edits of a text, bytes in and bytes out: nothing is decoded, so line ends and odd bytes stay as they are."""

from executor.domain.errors import StepFailedError
from executor.workspace.paths import shown


def require_text(path: bytes, content: bytes) -> None:
    """Refuse binary content; a NUL byte is what makes content binary.

    Raises:
        StepFailedError: it holds a NUL byte.
    """
    if b"\0" in content:
        remedy = "write the whole file with write_file, or let a command change it"
        raise StepFailedError("UNSUPPORTED", f"{shown(path)!r} is a binary file", remedy, paths=(path,))


def replace_text(path: bytes, content: bytes, *, old: bytes, new: bytes, expected: int) -> bytes:
    """Return the content with every occurrence replaced.

    Args:
        path: for messages.
        content: what the file holds.
        old: what to look for, not empty.
        new: what takes its place.
        expected: how many occurrences there must be; 0 asks for one or more.

    Raises:
        StepFailedError: there are none, or another number than expected.
    """
    if not old:
        raise StepFailedError("PLAN_INVALID", "the text to replace is empty", "say which text to replace")
    require_text(path, content)
    found = content.count(old)
    if found == 0 or (expected and found != expected):
        wanted = str(expected) if expected else "at least one"
        message = f"the text to replace occurs {found} times in {shown(path)!r}, not {wanted}"
        remedy = "read the file and give the text exactly as it stands there, with the right count"
        raise StepFailedError("CONFLICT", message, remedy, paths=(path,))
    return content.replace(old, new)


def append_text(path: bytes, content: bytes, *, text: bytes) -> bytes:
    """Return the content with a text behind it, exactly as given."""
    require_text(path, content)
    return content + text
