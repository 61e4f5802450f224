"""JSON that only has one reading."""

import json


def strict_json(text: bytes) -> object:
    """Read JSON and refuse a key that stands twice in one object.

    Raises:
        ValueError: not JSON, or not unambiguous.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        message = "nested too deeply"
        raise ValueError(message) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a key stands there twice"
        raise ValueError(message)
    return found
