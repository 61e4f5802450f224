#!/usr/bin/env python3

"""Builds the sandbox's system call filters from `policy.toml`, with libseccomp.

Only the machine that builds needs libseccomp (Debian: libseccomp2); what is shipped are the finished programs, one per
architecture, and a list of their digests. Nothing but Python's own library is used, so any Python 3.11 can run this:

    deploy/seccomp/build.py            write executor/sandbox/filters/
    deploy/seccomp/build.py --check    compare, write nothing
"""

import ctypes
import ctypes.util
import errno
import hashlib
import itertools
import json
import os
import struct
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

POLICY = Path(__file__).with_name("policy.toml")
TARGET = Path(__file__).parents[2] / "executor" / "sandbox" / "filters"
# The kernel's AUDIT_ARCH numbers, which are libseccomp's tokens too, by the name that uname gives a machine.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000
_BAD_ARCHITECTURE = 2  # SCMP_FLTATR_ACT_BADARCH
_OPTIMIZE = 8  # SCMP_FLTATR_CTL_OPTIMIZE
_BINARY_TREE = 2
_NOT_EQUAL, _EQUAL, _GREATER, _MASKED_EQUAL = 1, 4, 6, 7
_UNKNOWN = -1
# Classic BPF: load a word, jump on equal, on greater or equal, on greater, return.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x06
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4
_X32_NUMBERS, _NO_NUMBER = 0x40000000, 0xFFFFFFFF


class _Comparison(ctypes.Structure):
    _fields_ = (  # type: ignore[mutable-override]  # the base says sequence, and reads it once
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class BuildError(Exception):
    """The table or the library does not give a filter."""


class Library:
    """The C library, with the few of its functions that are needed."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("seccomp")
        if name is None:
            raise BuildError("there is no libseccomp here; Debian: apt-get install libseccomp2")
        self._library = ctypes.CDLL(name, use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)
        self.version = ".".join(map(str, self._library.seccomp_version().contents))

    def start(self, architecture: int) -> ctypes.c_void_p:
        """A filter for one architecture alone, which allows everything and kills what comes by another's numbers."""
        context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(_ALLOW)))
        if context.value is None:
            raise BuildError("libseccomp gives no filter")
        native = self._library.seccomp_arch_native()
        if ctypes.c_uint32(native).value != architecture:
            self._call("arch_add", context, ctypes.c_uint32(architecture))
            self._call("arch_remove", context, ctypes.c_uint32(native))
        self._call("attr_set", context, _BAD_ARCHITECTURE, ctypes.c_uint32(_KILL))
        self._call("attr_set", context, _OPTIMIZE, ctypes.c_uint32(_BINARY_TREE))
        return context

    def deny(self, context: ctypes.c_void_p, call: str, answer: str, tests: Sequence[_Comparison]) -> None:
        """Adds one rule; a call that the architecture does not have is left out by the library."""
        number = self._library.seccomp_syscall_resolve_name(call.encode("ascii"))
        if number == _UNKNOWN:
            raise BuildError(f"libseccomp {self.version} does not know {call!r}")
        array = (_Comparison * len(tests))(*tests)
        action = ctypes.c_uint32(_ERRNO | getattr(errno, answer))
        self._call("rule_add_array", context, action, number, ctypes.c_uint(len(tests)), array)

    def number(self, architecture: int, call: str) -> int:
        number = self._library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(architecture), call.encode("ascii"))
        if number < 0:
            raise BuildError(f"libseccomp {self.version} has no number for {call!r}")
        return int(number)

    def finish(self, context: ctypes.c_void_p) -> bytes:
        fd = os.memfd_create("filter")
        try:
            self._call("export_bpf", context, fd)
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
            self._library.seccomp_release(context)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, f"seccomp_{name}")(*arguments)
        if code < 0:
            raise BuildError(f"seccomp_{name}{arguments[1:]}: {os.strerror(-code)}")


def build(policy: Mapping[str, Any], library: Library, architecture: int) -> bytes:
    """One architecture's program: first the look at number and architecture, then libseccomp's."""
    context = library.start(architecture)
    for entry in policy["deny"]:
        for call in entry["calls"]:
            library.deny(context, call, entry["answer"], ())
    for entry in policy["deny_when"]:
        calls = [entry["call"]] if isinstance(entry["call"], str) else entry["call"]
        for call, tests in itertools.product(calls, _alternatives(entry)):
            library.deny(context, call, entry["answer"], tests)
    return prologue(architecture, library.number(architecture, policy["newest"])) + library.finish(context)


def prologue(architecture: int, newest: int) -> bytes:
    """What libseccomp has no rule for: a number above the newest known one answers ENOSYS.

    A number of x32 is above it, too, and kills; -1 is what a tracer leaves of a call that it took away.
    """
    return b"".join(
        itertools.starmap(
            _instruction,
            (
                (_LOAD, 0, 0, _AT_ARCHITECTURE),
                (_JUMP_EQUAL, 1, 0, architecture),
                (_RETURN, 0, 0, _KILL),
                (_LOAD, 0, 0, _AT_NUMBER),
                (_JUMP_ABOVE, 0, 4, newest),
                (_JUMP_AT_LEAST, 0, 2, _X32_NUMBERS),
                (_JUMP_EQUAL, 1, 0, _NO_NUMBER),
                (_RETURN, 0, 0, _KILL),
                (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
            ),
        )
    )


def _instruction(code: int, when_true: int, when_false: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, when_true, when_false, value)


def _alternatives(entry: Mapping[str, Any]) -> Iterator[tuple[_Comparison, ...]]:
    """The rules that one entry of the table comes to: libseccomp has neither "any of" nor "any flag"."""
    if "any_flag" in entry:
        argument = entry["any_flag"]["argument"]
        for flag in entry["any_flag"]["flags"]:
            yield (_Comparison(argument, _MASKED_EQUAL, flag, flag),)
        return
    yield from itertools.product(*(tuple(_comparisons(line)) for line in entry["when"]))


def _comparisons(line: Mapping[str, Any]) -> Iterator[_Comparison]:
    argument, mask = line["argument"], line.get("mask")
    if "is_not" in line:
        yield _Comparison(argument, _NOT_EQUAL, line["is_not"], 0)
    elif "above" in line:
        yield _Comparison(argument, _GREATER, line["above"], 0)
    else:
        for value in line["is_any"] if "is_any" in line else (line["is"],):
            if mask is None:
                yield _Comparison(argument, _EQUAL, value, 0)
            else:
                yield _Comparison(argument, _MASKED_EQUAL, mask, value)


def build_all() -> dict[str, bytes]:
    """The content of each file to ship, by its name."""
    library = Library()
    source = POLICY.read_bytes()
    policy = tomllib.loads(source.decode("utf-8"))
    files = {f"{name}.bpf": build(policy, library, number) for name, number in ARCHITECTURES.items()}
    listed = {
        "libseccomp": library.version,
        "policy": _digest(source),
        "filters": {name: _digest(program) for name, program in files.items()},
    }
    return {**files, "filters.json": (json.dumps(listed, indent=2) + "\n").encode("ascii")}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def main(arguments: Sequence[str]) -> int:
    files = build_all()
    if "--check" in arguments:
        different = [name for name, content in files.items() if (TARGET / name).read_bytes() != content]
        sys.stdout.write(f"different: {', '.join(different)}\n" if different else "the shipped filters are these\n")
        return bool(different)
    TARGET.mkdir(exist_ok=True)
    for name, content in files.items():
        (TARGET / name).write_bytes(content)
        sys.stdout.write(f"{name}: {len(content)} bytes, {_digest(content)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
