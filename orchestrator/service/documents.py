"""Sealed documents ↔ documents of the log."""

import base64
import json

from orchestrator.domain.evidence import Sealed, Signature
from orchestrator.service.event_log import Document

_encode = json.JSONEncoder().encode


def document_of(sealed: Sealed) -> Document:
    """Return what the log stores of a sealed document."""
    signatures = [
        {
            "key_id": signature.key_id,
            "scheme": signature.scheme,
            "signature": base64.b64encode(signature.signature).decode(),
            "extra": base64.b64encode(signature.extra).decode(),
        }
        for signature in sealed.signatures
    ]
    return Document(
        digest=sealed.digest,
        media_type=sealed.media_type,
        body=sealed.body,
        signatures=_encode(signatures),
        just_encoded=True,
    )


def sealed_of(document: Document) -> Sealed:
    """Return the sealed document that the log stored."""
    return Sealed(
        media_type=document.media_type,
        body=document.body,
        digest=document.digest,
        signatures=tuple(
            Signature(
                key_id=written["key_id"],
                scheme=written["scheme"],
                signature=base64.b64decode(written["signature"]),
                extra=base64.b64decode(written["extra"]),
            )
            for written in json.loads(document.signatures)
        ),
    )
