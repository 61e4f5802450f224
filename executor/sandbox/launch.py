"""What a command's launcher is given, and how much of it there may be.

bwrap reads its own options from a descriptor, so that however many hidden paths and tools there are, and however long
they are, they do not weigh on the arguments, which the kernel bounds. The command's words, and the paths that pid 1
looks at, stay arguments. What bwrap or the kernel would not take is refused before anything starts, with a remedy.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from executor.sandbox.sandbox import SandboxRefusedError

Word = str | bytes

_MOST_WORDS = 9_000  # bwrap's own bound on its options and the command's words together
_MOST_WORD_BYTES = (128 << 10) - 1  # the kernel's, on one argument or variable: 32 pages with its NUL
_MOST_BYTES = 6 << 20  # the kernel's, on all of them, however large the stack may grow
_POINTER_BYTES = 8
# The launchers' own words.
_OWN_WORDS = 32
_OWN_BYTES = 16 << 10


def check_size(*, argv: Sequence[str], variables: Sequence[str], looked_at: Sequence[bytes], options: int) -> None:
    """Refuses a command that could not be started for the number or the length of what it is given.

    Args:
        argv: the command.
        variables: its variables, each with its value.
        looked_at: the paths that pid 1 looks at.
        options: how many words bwrap's own options have.

    Raises:
        SandboxRefusedError: says what is too much.
    """
    words = (*argv, *variables)
    longest = max(len(os.fsencode(word)) for word in words)
    if longest > _MOST_WORD_BYTES:
        raise _too_long(f"one of its arguments or variables has {longest} bytes; the most is {_MOST_WORD_BYTES}")
    room = min(os.sysconf("SC_ARG_MAX"), _MOST_BYTES) - _OWN_BYTES
    own = _weight(words)
    if own > room:
        raise _too_long(f"its arguments and variables take {own} bytes; the most is {room}")
    hiding = options + len(looked_at) + _OWN_WORDS
    if len(argv) + hiding > _MOST_WORDS and len(argv) > hiding:
        raise _too_long(f"it has {len(argv)} arguments; the most is {_MOST_WORDS - hiding}")
    if len(argv) + hiding > _MOST_WORDS or own + _weight(looked_at) > room:
        raise SandboxRefusedError(
            "TOO_LARGE",
            f"the workspace has more, or longer, hidden paths than can be covered: {len(looked_at)} with their folders",
            "let the executor's `hidden` name the folders that hold them, so that each is covered as one",
        )


@contextlib.contextmanager
def passed(content: bytes) -> Iterator[int]:
    """A descriptor for a launcher, which reads it to its end and closes it before the command starts."""
    fd = os.memfd_create("launch")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def packed(options: Sequence[Word]) -> bytes:
    """Options as bwrap reads them from a descriptor: a NUL after each."""
    return b"".join(os.fsencode(option) + b"\0" for option in options)


def _weight(words: Sequence[Word]) -> int:
    """What the kernel counts: the bytes, a NUL and a pointer for each."""
    return sum(len(os.fsencode(word)) + 1 + _POINTER_BYTES for word in words)


def _too_long(what: str) -> SandboxRefusedError:
    return SandboxRefusedError(
        "TOO_LARGE",
        f"the command can not be started: {what}",
        "write the data into a file in an earlier step and name the file",
    )
