"""A sealed document as the executor passes it around: the bytes that were carried, never a parsed copy of them."""

from dataclasses import dataclass
from functools import cached_property

from gonogo.digests import digest, framed_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature over a document's media type and body."""

    key_id: str
    scheme: str
    signature: bytes
    extra: bytes = b""

    @property
    def parts(self) -> tuple[bytes, ...]:
        return (self.key_id.encode(), self.scheme.encode(), self.signature, self.extra)


@dataclass(frozen=True, kw_only=True)
class SealedBytes:
    """A document, what it claims to be, and who signed it."""

    media_type: str
    body: bytes
    signatures: tuple[Signature, ...] = ()

    @cached_property
    def digest(self) -> str:
        """The digest that names the document: of its body, and of nothing else."""
        return digest(self.body)

    @property
    def envelope_digest(self) -> str:
        """The digest of everything carried, to tell one request from another; it names no document."""
        flat = (part for signature in self.signatures for part in signature.parts)
        return framed_digest((self.media_type.encode(), self.body, *flat))
