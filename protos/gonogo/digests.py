"""Digests and fingerprints: one definition for all sides.

A digest is the text ``sha256:`` and 64 hex digits. A fingerprint is the digest of a set of paths and what each of them
is. Everything that goes into a digest as more than one part is length-prefixed, so that no two inputs share bytes.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

PREFIX = "sha256:"
LENGTH = len(PREFIX) + 64
_FORM = re.compile(f"{PREFIX}[0-9a-f]{{64}}")

NODE_TYPES = ("file", "directory", "symlink", "other")


def digest(data: bytes) -> str:
    """Return the digest of some bytes."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Tell whether a text is a well-formed digest."""
    return _FORM.fullmatch(text) is not None


def framed(parts: Iterable[bytes]) -> bytes:
    """Join parts so that the joined bytes tell where each part ends."""
    pieces: list[bytes] = []
    for part in parts:
        pieces += (len(part).to_bytes(8, "big"), part)
    return b"".join(pieces)


def framed_digest(parts: Iterable[bytes]) -> str:
    """Return the digest of several parts."""
    return digest(framed(parts))


def step_digest(report_digest: str, step_id: str) -> str:
    """Return what a step's own approval names: the step exactly as one report has it, change set and all.

    Args:
        report_digest: names the sealed report.
        step_id: the step in it.
    """
    return framed_digest((b"step", report_digest.encode(), step_id.encode()))


def pre_authentication_encoding(media_type: str, body: bytes) -> bytes:
    """Return what a signature over a sealed document is made over (DSSE v1, PAE).

    Source: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    """
    kind = media_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def node_record(
    *, node_type: str, mode: str, content: str, link_target: bytes, xattrs: Sequence[tuple[str, bytes]]
) -> bytes:
    """Return the bytes that stand for what a path is.

    Args:
        node_type: one of `NODE_TYPES`.
        mode: permission bits in octal, such as ``0644``.
        content: digest of a file's bytes, else empty.
        link_target: where a symbolic link points, else empty.
        xattrs: extended attributes, sorted by name.
    """
    if node_type not in NODE_TYPES:
        message = f"unknown node type {node_type!r}"
        raise ValueError(message)
    flat = [part for name, value in xattrs for part in (name.encode(), value)]
    return framed([node_type.encode(), mode.encode(), content.encode(), link_target, *flat])


def fingerprint(nodes: Iterable[tuple[bytes, bytes | None]]) -> str:
    """Return the fingerprint of paths and what they are.

    Args:
        nodes: pairs of a path's bytes and its `node_record`, or None where the path is not there.
    """
    parts: list[bytes] = []
    for path, record in sorted(nodes, key=lambda node: node[0]):
        parts += (path, b"absent" if record is None else b"present", record or b"")
    return framed_digest(parts)
