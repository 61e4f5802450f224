"""What a proof is made from: a bundle or a shown mission in a file, and the verifier's own keys and checkpoints."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.bundle import Bundle, SealedText
from client.bundle_file import is_bundle, read_bundle, read_sealed, read_segment
from client.errors import ClientError
from client.mission_state import state_shown
from client.proving.anchors import Anchors
from client.signing import read_public_key, trusted_keys
from client.state import StateDirectory
from client.strict_json import strict_json
from client.witnessing import kept_checkpoints, pinned_executor, pinned_orchestrator
from gonogo.signatures import PublicKey

_HOW = "write the file with: gonogo export M --bundle FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKeys:
    """Files of public keys that the verifier names; the state's own where left out."""

    executor: Path | None
    orchestrator: Path | None


def read_proof(text: bytes, name: str) -> Bundle:
    """Read a bundle or what `gonogo show -o json` wrote; the content tells which it is.

    Raises:
        ClientError: it is neither.
    """
    try:
        data = strict_json(text)
    except ValueError as error:
        raise ClientError("MALFORMED", f"{name}: {error}", _HOW) from None
    return read_bundle(data) if is_bundle(data) or not isinstance(data, dict) else read_shown(data)


def read_shown(data: Mapping[str, Any]) -> Bundle:
    """Read back what `gonogo show -o json` wrote: the documents alone, without policy and logs.

    Raises:
        ClientError: it is not such a file.
    """
    try:
        documents = data["documents"]
        return Bundle(
            mission=state_shown(data),
            plan=read_sealed(documents["plan"]),
            report=_optional(documents["report"]),
            approvals=tuple(map(read_sealed, documents["approvals"])),
            segments=tuple(map(read_segment, documents.get("segments", ()))),
            words=tuple(map(read_sealed, documents.get("words", ()))),
            receipt=_optional(documents["receipt"]),
            refusal=_optional(documents["refusal"]),
            has_logs=False,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"neither a bundle nor what gonogo show -o json writes: {type(error).__name__} {error}"
        raise ClientError("MALFORMED", message, _HOW) from None


def _optional(data: object) -> SealedText | None:
    return None if data is None else read_sealed(data)


def anchors_of(state: StateDirectory, own: OwnKeys, bundle: Bundle) -> Anchors:
    """Return what the verifier brings to a proof: named keys, else the state's, and the state's kept checkpoints.

    Raises:
        ClientError: the executor's key is not there, or a key or a kept checkpoint can not be read.
    """
    executor = _executor_key(state, own)
    named = read_public_key(own.orchestrator) if own.orchestrator else None
    # What is kept was signed by the state's executor; of another one nothing is kept here.
    pinned = pinned_executor(state)
    own_executor = pinned is None or pinned.line == executor.line
    return Anchors(
        executor=executor,
        orchestrator=named or pinned_orchestrator(state),
        approvers=trusted_keys(state),
        kept=kept_checkpoints(state, bundle.mission.executor_id if own_executor else "", executor),
    )


def _executor_key(state: StateDirectory, own: OwnKeys) -> PublicKey:
    path = own.executor or state.executor_public_key
    if own.executor is None and not path.exists():
        message = "nobody here knows the executor's public key, and a proof stands on it"
        remedy = "get it from the executor's operator, by a way that you trust, and name it: --executor-key FILE"
        raise ClientError("KEY_UNUSABLE", message, remedy)
    return read_public_key(path)


def write_whole(path: Path, text: str) -> None:
    """Write a file as a whole: it is there with everything in it, or as it was.

    Raises:
        ClientError: it can not be written.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("x", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        message = f"{path}: {error.strerror or error}"
        raise ClientError("FILE_UNREADABLE", message, "name a file in a directory that you may write") from None
