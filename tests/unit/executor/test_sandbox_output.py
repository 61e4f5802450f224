"""Bounded capture of a stream."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from executor.sandbox.output import StreamCapture


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(min_value=0, max_value=64))
def test_the_capture_keeps_both_ends_and_digests_all(chunks: list[bytes], keep: int) -> None:
    """However the bytes are cut: whole when they fit, else the first half and the last half of what is kept."""
    whole = b"".join(chunks)
    capture = StreamCapture(keep=keep)
    audible = b"".join(capture.feed(chunk) for chunk in chunks)
    result = capture.result()
    assert audible == whole[:keep]
    assert (result.total, result.digest) == (len(whole), "sha256:" + hashlib.sha256(whole).hexdigest())
    assert result.truncated == (len(whole) > keep)
    if result.truncated:
        tail = keep - keep // 2
        assert (result.head, result.tail) == (whole[: keep // 2], whole[-tail:] if tail else b"")
    else:
        assert (result.head, result.tail) == (whole, b"")
