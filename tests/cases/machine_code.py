"""Small programs written byte by byte, so that no compiler and no 32-bit library has to be there."""

import struct

SAID = b"open\n"
_BASE = 0x400000
X32 = 0x40000000


def elf64(code: bytes) -> bytes:
    """A static 64-bit program of this code, with `SAID` behind it."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    start = 64 + 56
    size = start + len(code) + len(SAID)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return head + segment + code + SAID


def elf32(code: bytes) -> bytes:
    """A static 32-bit program of this code, with `SAID` behind it."""
    head = b"\x7fELF\x01\x01\x01" + bytes(9)
    start = 52 + 32
    size = start + len(code) + len(SAID)
    head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, _BASE + start, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000)
    return head + segment + code + SAID


def _by_int80(start: int) -> bytes:
    """write(1, SAID, 5) and exit(0) by the 32-bit entry, in instructions that both modes read alike."""
    length = 34
    return b"".join(
        (
            b"\xb8" + struct.pack("<I", 4),  # mov eax, write
            b"\xbb" + struct.pack("<I", 1),  # mov ebx, 1
            b"\xb9" + struct.pack("<I", _BASE + start + length),  # mov ecx, SAID
            b"\xba" + struct.pack("<I", len(SAID)),  # mov edx, length
            b"\xcd\x80",  # int 0x80
            b"\xb8" + struct.pack("<I", 1),  # mov eax, exit
            b"\xbb" + struct.pack("<I", 0),  # mov ebx, 0
            b"\xcd\x80",  # int 0x80
        )
    )


def _by_syscall(number: int) -> bytes:
    """A call like write(1, SAID, 5) by its number, then exit(0) by the ordinary one."""
    length = 34
    return b"".join(
        (
            b"\xb8" + struct.pack("<I", number),  # mov eax, number
            b"\xbf" + struct.pack("<I", 1),  # mov edi, 1
            b"\xbe" + struct.pack("<I", _BASE + 64 + 56 + length),  # mov esi, SAID
            b"\xba" + struct.pack("<I", len(SAID)),  # mov edx, length
            b"\x0f\x05",  # syscall
            b"\xb8" + struct.pack("<I", 60),  # mov eax, exit
            b"\xbf" + struct.pack("<I", 0),  # mov edi, 0
            b"\x0f\x05",  # syscall
        )
    )


PROGRAMS = {
    "plain": elf64(_by_syscall(1)),
    "32-bit program": elf32(_by_int80(52 + 32)),
    "int 0x80 of a 64-bit program": elf64(_by_int80(64 + 56)),
    "x32 call of a 64-bit program": elf64(_by_syscall(X32 + 1)),
}
