"""Signatures: by the executor over what it says, by persons of the executor's policy over approvals and plans."""

from collections.abc import Iterable, Iterator

from client.bundle import Bundle, SealedText
from client.proving.anchors import Anchors
from client.proving.checks import Check, absent, check, labelled
from client.proving.opened import OpenApproval, Opened
from client.proving.segments import segments
from client.verification import verify_signature
from gonogo.policy import Key, KeyUse, Person, PersonKind, Policy, Proposer, ProposerKind, Vote
from gonogo.signatures import ED25519, PublicKey, SignatureError, load_public_key
from gonogo.ssh_keys import SECURITY_KEY
from gonogo.v1 import sealed_pb2


def seal_checks(bundle: Bundle, opened: Opened, anchors: Anchors) -> Iterator[Check]:
    """Check every signature of a bundle's documents."""
    yield from _stated((("policy", bundle.policy),), anchors)
    for segment in segments(bundle, opened):
        yield from labelled(segment.label, _segment_checks(segment.bundle, segment.opened, anchors))
    yield from _stated((("receipt", bundle.receipt), ("refusal", bundle.refusal)), anchors)


def _segment_checks(bundle: Bundle, opened: Opened, anchors: Anchors) -> Iterator[Check]:
    yield from _stated((("report", bundle.report),), anchors)
    for one in opened.approvals:
        yield _approval_signed(one, opened.policy, anchors)
    yield from _plan_signed(bundle.plan, opened)


def _stated(documents: Iterable[tuple[str, SealedText | None]], anchors: Anchors) -> Iterator[Check]:
    for name, document in documents:
        if document is not None:
            yield executor_signed(f"{name} signature", document.sealed, anchors.executor)


def executor_signed(title: str, sealed: sealed_pb2.Sealed, key: PublicKey) -> Check:
    """Check that the executor, and nobody else, signed a document."""
    if len(sealed.signatures) != 1:
        return check(title, False, "not signed" if not sealed.signatures else "signed more than once")
    signature = sealed.signatures[0]
    if signature.key_id != key.key_id:
        return check(title, False, f"by an unknown key {signature.key_id}, not by the executor's {key.key_id}")
    if signature.scheme != ED25519:
        return check(title, False, f"the executor does not sign with {signature.scheme!r}")
    return _verified(title, sealed, signature, key)


def vote_of(one: OpenApproval, policy: Policy) -> Vote | None:
    """Return what an approval counts for under a policy, None where its signature is not its approver's."""
    return vote_in_name(one.document.sealed, one.approval.approver, policy)


def vote_in_name(sealed: sealed_pb2.Sealed, named: str, policy: Policy) -> Vote | None:
    """Return what a document in somebody's name counts for, None where its one signature is not that person's."""
    listed = _listed(sealed, policy)
    if listed is None:
        return None
    person, key = listed
    if person.person_id != named or not _may_approve(person, key):
        return None
    if not _verified_listed("", sealed, sealed.signatures[0], key).ok:
        return None
    return Vote(person=person.person_id, key_id=key.key_id, hardware=key.hardware)


def proven_proposer(plan: SealedText, policy: Policy) -> Proposer:
    """Return who asked, as far as the plan's signatures prove it."""
    for signature in plan.sealed.signatures:
        found = _key_of(signature, policy)
        if found is None or not _verified_listed("", plan.sealed, signature, found[1]).ok:
            continue
        person = found[0]
        kind = ProposerKind.AGENT if person.kind is PersonKind.AGENT else ProposerKind.PERSON
        return Proposer(kind=kind, person=person.person_id, sponsor=person.sponsor)
    return Proposer()


def _approval_signed(one: OpenApproval, policy: Policy | None, anchors: Anchors) -> Check:
    return signed_in_name(one.name, one.document.sealed, one.approval.approver, policy, anchors)


def signed_in_name(name: str, sealed: sealed_pb2.Sealed, named: str, policy: Policy | None, anchors: Anchors) -> Check:
    """Check that a person signed a document in that person's own name, with a key that may approve."""
    title = f"{name} signature"
    if len(sealed.signatures) != 1:
        return check(title, False, f"it carries {len(sealed.signatures)} signatures, not one")
    signature = sealed.signatures[0]
    if policy is None:
        return _known_signed(title, sealed, anchors)
    listed = _listed(sealed, policy)
    if listed is None:
        return check(title, False, f"the policy names nobody with the key {signature.key_id} for {signature.scheme!r}")
    person, key_listed = listed
    if person.person_id != named:
        return check(title, False, f"{person.person_id} signed in the name of {named!r}")
    if not _may_approve(person, key_listed):
        return check(title, False, f"{person.person_id} may not approve with the key {signature.key_id}")
    return _verified_listed(title, sealed, signature, key_listed)


def _known_signed(title: str, sealed: sealed_pb2.Sealed, anchors: Anchors) -> Check:
    """Check a signature by whatever keys the verifier brought: there is no policy that says whose they are."""
    signature = sealed.signatures[0]
    key = anchors.approvers.get(signature.key_id)
    if key is None:
        return check(title, False, f"by an unknown key {signature.key_id}")
    return _verified(title, sealed, signature, key)


def _plan_signed(plan: SealedText, opened: Opened) -> Iterator[Check]:
    """Check the proposers' signatures; a plan may have none."""
    signatures, policy = plan.sealed.signatures, opened.policy
    if not signatures:
        yield absent("plan signature", "nobody signed the plan: its proposer is unknown", optional=True)
    elif policy is None:
        yield absent("plan signature", "without the policy nobody's key is known")
    else:
        for signature in signatures:
            yield _proposer_signed(plan, signature, opened.plan.proposer if opened.plan else "", policy)


def _proposer_signed(plan: SealedText, signature: sealed_pb2.Signature, claimed: str, policy: Policy) -> Check:
    title = f"plan signature {signature.key_id}"
    found = _key_of(signature, policy)
    if found is None:
        return absent(title, "the policy names nobody with this key: it proves nobody", optional=True)
    person, key = found
    if claimed and person.person_id != claimed:
        return check(title, False, f"by {person.person_id}, while the plan names {claimed!r} as its proposer")
    return _verified_listed(title, plan.sealed, signature, key)


def _may_approve(person: Person, key: Key) -> bool:
    return person.kind is PersonKind.PERSON and key.use is KeyUse.APPROVE


def _listed(sealed: sealed_pb2.Sealed, policy: Policy) -> tuple[Person, Key] | None:
    return _key_of(sealed.signatures[0], policy) if len(sealed.signatures) == 1 else None


def _key_of(signature: sealed_pb2.Signature, policy: Policy) -> tuple[Person, Key] | None:
    for person in policy.persons:
        for key in person.keys:
            if (key.key_id, key.scheme) == (signature.key_id, signature.scheme):
                return person, key
    return None


def _verified_listed(title: str, sealed: sealed_pb2.Sealed, signature: sealed_pb2.Signature, key: Key) -> Check:
    try:
        public = load_public_key(key.public_key)
    except SignatureError as error:
        return check(title, False, f"the policy's key can not be read: {error}")
    if (public.key_id, public.key_type == SECURITY_KEY) != (key.key_id, key.hardware):
        return check(title, False, f"the policy's key {key.key_id} is {public.key_type} {public.key_id}")
    return _verified(title, sealed, signature, public)


def _verified(title: str, sealed: sealed_pb2.Sealed, signature: sealed_pb2.Signature, key: PublicKey) -> Check:
    try:
        verify_signature(sealed, signature, key)
    except SignatureError as error:
        return check(title, False, str(error))
    return check(title, True, f"{signature.scheme} {signature.key_id}")
