"""What far sides answered, as reports and receipts keep it: redacted first, then digested, then cut."""

import json
from typing import Any, Final

from executor.domain.redaction import Redactor
from executor.domain.report import Excerpt
from gonogo.digests import digest

EXCERPT_BYTES: Final = 8192


def canonical(value: Any) -> bytes:
    """Return the one text of a JSON value that its digest is made over."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "replace")


def told(data: bytes, redactor: Redactor) -> tuple[Excerpt, str]:
    """Return the beginning and the end of what was answered, without secrets, and the digest of all of it."""
    clean = redactor.data(data)
    whole = digest(clean)
    if len(clean) <= EXCERPT_BYTES:
        head, tail = clean, b""
    else:
        head, tail = clean[: EXCERPT_BYTES // 2], clean[-EXCERPT_BYTES // 2 :]
    kept = Excerpt(
        head=head.decode("utf-8", "replace"),
        tail=tail.decode("utf-8", "replace"),
        total_bytes=len(clean),
        digest=whole,
        truncated=bool(tail),
    )
    return kept, whole
