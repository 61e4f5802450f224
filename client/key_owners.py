"""Whose a key is, for whoever signs: by the trust file of the state directory, else as the executor shows its policy.

Neither is believed for more than a name: what a signature proves, the executor finds out from its own trust file.
"""

from pathlib import Path

from client.api import GonogoClient
from client.signing import ApproverKey, KeyOwner, Signer, owner_of_key, unknown_key
from client.state import StateDirectory
from gonogo.policy import KeyUse, PersonKind
from gonogo.policy_document import open_policy
from gonogo.sealing import SealingError
from gonogo.signatures import SSHSIG, PublicKey, fits
from gonogo.v1 import executor_pb2


async def owner_at(state: StateDirectory, client: GonogoClient, key: PublicKey, path: Path) -> KeyOwner:
    """Return whose a key is.

    Raises:
        KeyFileError: nobody's whom the executor knows.
        ClientError: the executor could not be asked.
    """
    owner = owner_of_key(state, key.key_id) or _shown_owner(await client.executor(), key.key_id)
    if owner is None:
        raise unknown_key(key, path)
    return owner


def signer_of(key: ApproverKey, owner: KeyOwner) -> Signer:
    """Return a key as its owner signs with it."""
    return Signer(key=key, person=owner.person, scheme=owner.scheme if fits(owner.scheme, key.public) else SSHSIG)


def _shown_owner(executor: executor_pb2.GetExecutorResponse, key_id: str) -> KeyOwner | None:
    for person in executor.persons:
        for known in person.keys:
            if known.key_id == key_id:
                return KeyOwner(person=person.person, scheme=known.scheme, approves=True)
    try:
        policy = open_policy(executor.policy.body)
    except SealingError:
        return None  # nobody's, then: the key is refused
    for one in policy.persons:
        for key in one.keys:
            if key.key_id == key_id:
                approves = one.kind is PersonKind.PERSON and key.use is KeyUse.APPROVE
                return KeyOwner(person=one.person_id, scheme=key.scheme, approves=approves)
    return None
