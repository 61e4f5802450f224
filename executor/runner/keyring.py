"""Whose signature a signature is: by the keys of the trust file, and by nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass

from executor.domain.sealed import SealedBytes, Signature
from gonogo.policy import Key, Person
from gonogo.signatures import ED25519, PublicKey, SignatureError, SigningKey, load_public_key, verify


class UnknownKeyError(LookupError):
    """The trust file does not name the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Somebody of the trust file, and the key that they signed with."""

    person: Person
    key: Key


class Keyring:
    """The public keys of persons and agents, loaded once."""

    def __init__(self, persons: Iterable[Person]) -> None:
        self._public: dict[str, PublicKey] = {}
        self._signers: dict[tuple[str, str], Signer] = {}
        for person in persons:
            for key in person.keys:
                self._public[key.key_id] = load_public_key(key.public_key)
                self._signers[key.key_id, key.scheme] = Signer(person=person, key=key)

    def signer(self, document: SealedBytes, signature: Signature) -> Signer:
        """Return who signed the carried bytes, and with which key; what the key may be used for is the caller's to ask.

        Raises:
            UnknownKeyError: nobody of the trust file has that key.
            SignatureError: the scheme is not listed for the key, or the signature is not good.
        """
        public = self._public.get(signature.key_id)
        if public is None:
            raise UnknownKeyError(signature.key_id)
        signer = self._signers.get((signature.key_id, signature.scheme))
        if signer is None:
            text = f"key {signature.key_id} is not trusted for scheme {signature.scheme[:40]!r}"
            raise SignatureError(text)
        verify(
            public,
            scheme=signature.scheme,
            signature=signature.signature,
            media_type=document.media_type,
            body=document.body,
            extra=signature.extra,
        )
        return signer


class DocumentSigner:
    """The executor's own key: signs reports, receipts and refusals."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    @property
    def public_key(self) -> str:
        """OpenSSH's one-line form."""
        return self._key.public.line

    def sign(self, media_type: str, body: bytes) -> SealedBytes:
        """Return the document with the executor's signature."""
        raw = self._key.sign(ED25519, media_type, body)
        signature = Signature(key_id=self._key.public.key_id, scheme=ED25519, signature=raw)
        return SealedBytes(media_type=media_type, body=body, signatures=(signature,))
