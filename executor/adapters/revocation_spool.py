"""The folder in which the executor's own host hands in revocations, whether the executor runs or not.

A revocation is one file, durable before it is seen under its name. The executor takes the files in while it runs, and
before anything else when it starts; so there is one writer of the ledger and one of the audit log, and what was handed
in while nothing ran holds before anything can be executed.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format

from executor.adapters.spool_files import leave, make_folder, read
from executor.adapters.wire import sealed_from_proto, sealed_to_proto
from executor.domain.errors import RequestMalformedError, StoreError
from executor.domain.sealed import SealedBytes
from gonogo.v1 import sealed_pb2

MAX_FILE: Final = 64 * 1024
WAITING: Final = ".revocation"
ANSWERED: Final = ".answer"


def document_from_text(text: bytes) -> SealedBytes:
    """Read a signed document from the file that a client wrote.

    Raises:
        RequestMalformedError: it is none, or too large.
    """
    remedy = "write the file with: gonogo revoke MISSION -m WHY --out FILE"
    if len(text) > MAX_FILE:
        raise RequestMalformedError("TOO_LARGE", f"the file is larger than {MAX_FILE} bytes", remedy)
    try:
        return sealed_from_proto(json_format.Parse(text, sealed_pb2.Sealed()))
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise RequestMalformedError(
            "MALFORMED", f"the file is no signed document: {str(error)[:200]}", remedy
        ) from None


class RevocationSpool:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hand_in(self, document: SealedBytes) -> str:
        """Leave a document durably, and return the name under which it waits.

        Raises:
            StoreError: it could not be written.
        """
        name = secrets.token_hex(8)
        text = json_format.MessageToJson(sealed_to_proto(document), preserving_proto_field_name=True)
        try:
            make_folder(self._folder)
            leave(self._folder, name + WAITING, text)
        except OSError as error:
            raise StoreError(
                "STORE_FULL", f"the revocation could not be handed in: {error}", "make room, and try again"
            ) from error
        return name

    def waiting(self) -> tuple[str, ...]:
        """Return the names of what waits; costs one call of scandir on a folder that is mostly empty."""
        try:
            with os.scandir(self._folder) as entries:
                found = sorted(entry.name for entry in entries if entry.name.endswith(WAITING))
        except FileNotFoundError:
            return ()
        return tuple(name.removesuffix(WAITING) for name in found)

    def read(self, name: str) -> SealedBytes:
        """Read what waits under a name.

        Raises:
            RequestMalformedError: it is no signed document.
        """
        return document_from_text(read(self._folder / (name + WAITING), MAX_FILE + 1))

    def settle(self, name: str, answer: Mapping[str, object]) -> None:
        """Leave the answer for whoever handed it in, and let go of the file."""
        leave(self._folder, name + ANSWERED, json.dumps(answer))
        (self._folder / (name + WAITING)).unlink(missing_ok=True)

    def answer(self, name: str) -> Mapping[str, Any] | None:
        """Take the answer, if it is there."""
        path = self._folder / (name + ANSWERED)
        try:
            found = json.loads(read(path, MAX_FILE))
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        return found if isinstance(found, dict) else None

    def forget_answers(self) -> None:
        """Remove the answers that nobody took."""
        for path in self._folder.glob(f"*{ANSWERED}"):
            path.unlink(missing_ok=True)
