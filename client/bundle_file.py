"""The one-file bundle: all that a proof of one mission needs, readable with `jq`, and with public keys only.

Sealed bodies stand there as the text that was signed, leaves as the text whose hash is in the tree; digests are
``sha256:`` and hex, hashes and proofs hex, signatures base64, checkpoints signed notes. Reading is strict: a key that
is not known, a value of another type or more of something than an honest file holds refuses the whole file.

Nothing in a bundle vouches for itself. The keys in it tell by whom it claims to be signed; whoever verifies brings the
executor's own.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from client.bundle import Bundle, Continuity, Leaf, LogPart, SealedText, SegmentTexts
from client.errors import ClientError
from client.json_form import Json
from client.mission_state import LATER_NAMES, NAMES, state_from_json
from gonogo.v1 import sealed_pb2

FORMAT = "gonogo-bundle"
VERSION = 1
ABOUT = (
    "All that a proof of one mission needs. Each body and leaf is the exact text that was signed or hashed. "
    "gonogo verify FILE checks it offline; docs/verify.md shows how to do it by hand."
)

MAX_APPROVALS = 256
MAX_SIGNATURES = 16
MAX_SEGMENTS = 1_000
LATER_DOCUMENTS = ("segments", "words")
MAX_WORDS = 10_000
MAX_ENTRIES = 1_000_000
MAX_PATH = 64
MAX_CONTINUITIES = 1_024
HASH_BYTES = 32

T = TypeVar("T")


def bundle_json(bundle: Bundle) -> Json:
    """Return a bundle as its file holds it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "about": ABOUT,
        "keys": {"executor": bundle.executor_key, "orchestrator": bundle.orchestrator_key},
        "mission": bundle.mission.as_json(),
        "documents": {
            "plan": _sealed_json(bundle.plan),
            "policy": _sealed_json(bundle.policy),
            "report": _sealed_json(bundle.report),
            "approvals": [_sealed_json(one) for one in bundle.approvals],
            "segments": [_segment_json(one) for one in bundle.segments],
            "words": [_sealed_json(one) for one in bundle.words],
            "receipt": _sealed_json(bundle.receipt),
            "refusal": _sealed_json(bundle.refusal),
        },
        "logs": {"orchestrator": _log_json(bundle.orchestrator_log), "executor": _log_json(bundle.executor_log)},
    }


def bundle_text(bundle: Bundle) -> str:
    """Return the text of a bundle's file: JSON in ASCII, so that no character in it can hide."""
    return json.dumps(bundle_json(bundle), indent=2) + "\n"


def is_bundle(data: object) -> bool:
    """Tell whether JSON says of itself that it is a bundle, of whatever version."""
    return isinstance(data, dict) and data.get("format") == FORMAT


def read_bundle(data: object) -> Bundle:
    """Read the JSON of a bundle's file.

    Raises:
        ClientError: it is anything else, or of another version.
    """
    try:
        return _bundle(data)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        message = f"not a bundle of this version: {error}"
        raise ClientError("MALFORMED", message, "write the file with: gonogo export M --bundle FILE") from None


def read_sealed(data: object) -> SealedText:
    """Read a sealed document.

    Raises:
        KeyError, TypeError, ValueError: it is not one.
    """
    names = ("media_type", "digest", "body", "signatures")
    media_type, said, body, signatures = _object(data, "a document", *names)
    sealed = sealed_pb2.Sealed(
        media_type=_text(media_type),
        body=_text(body).encode(),
        signatures=_list(signatures, _signature, MAX_SIGNATURES),
    )
    return SealedText(sealed=sealed, digest=_text(said))


def read_segment(data: object) -> SegmentTexts:
    """Read what an earlier segment of an execution stood on.

    Raises:
        KeyError, TypeError, ValueError: it is not such a thing.
    """
    segment, plan, report, approvals = _object(data, "a segment", "segment", "plan", "report", "approvals")
    if type(segment) is not int or segment < 0:
        message = f"a segment's number is {segment!r}"
        raise ValueError(message)
    return SegmentTexts(
        segment=segment,
        plan=read_sealed(plan),
        report=_optional(report, read_sealed),
        approvals=tuple(_list(approvals, read_sealed, MAX_APPROVALS)),
    )


def _bundle(data: object) -> Bundle:
    name, version, _, keys, mission, documents, logs = _object(
        data, "the bundle", "format", "version", "about", "keys", "mission", "documents", "logs"
    )
    if name != FORMAT or type(version) is not int or version != VERSION:
        message = f"{name!r} version {version!r}; this release reads {FORMAT} version {VERSION}"
        raise ValueError(message)
    executor_key, orchestrator_key = _object(keys, "keys", "executor", "orchestrator")
    executor_log, orchestrator_log = _object(logs, "logs", "executor", "orchestrator")
    mission, documents = _with_later_ones(mission, documents)
    plan, policy, report, approvals, segments, words, receipt, refusal = _object(
        documents,
        "documents",
        *("plan", "policy", "report", "approvals", *LATER_DOCUMENTS, "receipt", "refusal"),
    )
    _object(mission, "the mission", *NAMES)
    return Bundle(
        mission=state_from_json(mission),
        plan=read_sealed(plan),
        policy=_optional(policy, read_sealed),
        report=_optional(report, read_sealed),
        approvals=tuple(_list(approvals, read_sealed, MAX_APPROVALS)),
        segments=tuple(_list(segments, read_segment, MAX_SEGMENTS)),
        words=tuple(_list(words, read_sealed, MAX_WORDS)),
        receipt=_optional(receipt, read_sealed),
        refusal=_optional(refusal, read_sealed),
        orchestrator_log=_optional(orchestrator_log, _log),
        executor_log=_optional(executor_log, _log),
        executor_key=_text(executor_key),
        orchestrator_key=_text(orchestrator_key),
    )


def _log(data: object) -> LogPart:
    checkpoint, entries, continuity = _object(data, "a log", "checkpoint", "entries", "continuity")
    return LogPart(
        checkpoint=_text(checkpoint),
        leaves=tuple(_list(entries, _leaf, MAX_ENTRIES)),
        continuity=tuple(_list(continuity, _continuity, MAX_CONTINUITIES)),
    )


def _leaf(data: object) -> Leaf:
    index, leaf, path = _object(data, "an entry", "index", "leaf", "path")
    if type(index) is not int or index < 0:
        message = f"an entry's index is {index!r}"
        raise ValueError(message)
    return Leaf(index=index, text=_text(leaf), path=_hashes(path))


def _continuity(data: object) -> Continuity:
    older, newer, consistency = _object(data, "a continuity", "older", "newer", "consistency")
    return Continuity(older=_text(older), newer=_text(newer), consistency=_hashes(consistency))


def _signature(data: object) -> sealed_pb2.Signature:
    key_id, scheme, signature, extra = _object(data, "a signature", "key_id", "scheme", "signature", "extra")
    return sealed_pb2.Signature(
        key_id=_text(key_id), scheme=_text(scheme), signature=_base64(signature), extra=_base64(extra)
    )


def _base64(value: object) -> bytes:
    text = _text(value)
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        message = "base64 that is not the one text of its bytes"
        raise ValueError(message)
    return data


def _hashes(value: object) -> tuple[bytes, ...]:
    return tuple(_list(value, _hash, MAX_PATH))


def _hash(value: object) -> bytes:
    text = _text(value)
    data = bytes.fromhex(text)
    if len(data) != HASH_BYTES or data.hex() != text:
        message = f"{text[:80]!r} is no hash"
        raise ValueError(message)
    return data


def _with_later_ones(mission: Any, documents: Any) -> tuple[Any, Any]:
    """Return mission and documents with what files of before have none of: missions were of one segment then."""
    if not isinstance(mission, dict) or not isinstance(documents, dict):
        return mission, documents
    if (mission.keys() | documents.keys()) & {*LATER_NAMES, *LATER_DOCUMENTS}:
        return mission, documents
    return {**mission, **dict.fromkeys(LATER_NAMES, 0)}, {**documents, **{name: [] for name in LATER_DOCUMENTS}}


def _object(data: object, what: str, *names: str) -> list[Any]:
    """Return the values of exactly these keys."""
    if not isinstance(data, dict):
        message = f"{what} is no object"
        raise TypeError(message)
    if data.keys() != set(names):
        different = ", ".join(sorted(str(name)[:80] for name in data.keys() ^ set(names)))
        message = f"{what}: unknown or missing: {different}"
        raise ValueError(message)
    return [data[name] for name in names]


def _list(data: object, read: Callable[[object], T], limit: int) -> list[T]:
    if not isinstance(data, list) or len(data) > limit:
        message = f"not a list of at most {limit}"
        raise ValueError(message)
    return [read(one) for one in data]


def _optional(data: object, read: Callable[[object], T]) -> T | None:
    return None if data is None else read(data)


def _text(data: object) -> str:
    if not isinstance(data, str):
        message = f"{data!r:.80} is no text"
        raise TypeError(message)
    data.encode()  # a lone surrogate stands for no bytes; the UnicodeEncodeError is a ValueError
    return data


def _sealed_json(document: SealedText | None) -> Json | None:
    if document is None:
        return None
    return {
        "media_type": document.sealed.media_type,
        "digest": document.digest,
        "body": document.sealed.body.decode("utf-8"),
        "signatures": [
            {
                "key_id": one.key_id,
                "scheme": one.scheme,
                "signature": base64.b64encode(one.signature).decode(),
                "extra": base64.b64encode(one.extra).decode(),
            }
            for one in document.sealed.signatures
        ],
    }


def _segment_json(one: SegmentTexts) -> Json:
    return {
        "segment": one.segment,
        "plan": _sealed_json(one.plan),
        "report": _sealed_json(one.report),
        "approvals": [_sealed_json(approval) for approval in one.approvals],
    }


def _log_json(log: LogPart | None) -> Json | None:
    if log is None:
        return None
    return {
        "checkpoint": log.checkpoint,
        "entries": [{"index": one.index, "leaf": one.text, "path": _hex(one.path)} for one in log.leaves],
        "continuity": [
            {"older": one.older, "newer": one.newer, "consistency": _hex(one.consistency)} for one in log.continuity
        ],
    }


def _hex(hashes: Sequence[bytes]) -> list[str]:
    return [one.hex() for one in hashes]
