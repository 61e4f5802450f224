"""Whose signature a signature is: by the keys of the trust file, and by nothing else."""

from executor.domain.policy import Trust
from executor.domain.sealed import SealedBytes, Signature
from gonogo.signatures import ED25519, PublicKey, SignatureError, SigningKey, load_public_key, verify


class UnknownKeyError(LookupError):
    """The trust file does not name the key."""


class Keyring:
    """The persons' public keys, loaded once."""

    def __init__(self, trust: Trust) -> None:
        self._keys: dict[str, tuple[str, PublicKey, frozenset[str]]] = {}
        for person in trust.persons:
            for key in person.keys:
                schemes = frozenset(other.scheme for other in person.keys if other.key_id == key.key_id)
                self._keys[key.key_id] = (person.person_id, load_public_key(key.public_key), schemes)

    def signer(self, document: SealedBytes, signature: Signature) -> str:
        """Return the person who signed the carried bytes.

        Raises:
            UnknownKeyError: nobody of the trust file has that key.
            SignatureError: the scheme is not listed for the key, or the signature is not good.
        """
        entry = self._keys.get(signature.key_id)
        if entry is None:
            raise UnknownKeyError(signature.key_id)
        person, public, schemes = entry
        if signature.scheme not in schemes or signature.extra:
            text = f"key {signature.key_id} of {person} is not trusted for scheme {signature.scheme!r}"
            raise SignatureError(text)
        verify(
            public,
            scheme=signature.scheme,
            signature=signature.signature,
            media_type=document.media_type,
            body=document.body,
        )
        return person


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
