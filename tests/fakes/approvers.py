"""Persons and agents with keys, who sign plans as their proposers and approvals of reports."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from gonogo import sealing
from gonogo.digests import digest
from gonogo.policy import Key, KeyUse, Person, PersonKind
from gonogo.signatures import SSHSIG, PublicKey, SigningKey, load_public_key, new_signing_key, verify
from gonogo.v1 import evidence_pb2
from orchestrator.domain.evidence import Sealed, Signature, TrustedKey, TrustedPerson
from tests.fakes.security_key import SecurityKey


def timestamp(time: datetime) -> Timestamp:
    """Return a time as the contract carries it."""
    sent = Timestamp()
    sent.FromDatetime(time)
    return sent


def sealed(media_type: str, body: bytes, key: "SigningKey | HardwareKey", scheme: str = "ed25519") -> Sealed:
    """Sign a document's bytes."""
    signature = Signature(key_id=key.public.key_id, scheme=scheme, signature=key.sign(scheme, media_type, body))
    return Sealed(media_type=media_type, body=body, digest=digest(body), signatures=(signature,))


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareKey:
    """A security key, touched whenever it is asked to sign."""

    device: SecurityKey = field(default_factory=SecurityKey.new)

    @property
    def public(self) -> PublicKey:
        return self.device.public

    def sign(self, scheme: str, media_type: str, body: bytes) -> bytes:
        assert scheme == SSHSIG
        return self.device.sign(media_type, body)


@dataclass(slots=True, kw_only=True)
class Approver:
    """A person with a key who signs approvals for what a report says."""

    person: str = "owner"
    key: SigningKey | HardwareKey = field(default_factory=new_signing_key)
    scheme: str = "sshsig"

    def trusted(self) -> TrustedPerson:
        """Return the executor's entry for this person."""
        key = TrustedKey(key_id=self.key.public.key_id, scheme=self.scheme, public_key=self.key.public.line)
        return TrustedPerson(person=self.person, keys=(key,))

    def proposing(self, *, sponsor: str = "") -> Person:
        """Return the policy's entry for somebody whose key proposes and does not approve; with a sponsor, an agent."""
        key = Key(
            key_id=self.key.public.key_id, scheme=self.scheme, public_key=self.key.public.line, use=KeyUse.PROPOSE
        )
        kind = PersonKind.AGENT if sponsor else PersonKind.PERSON
        return Person(person_id=self.person, kind=kind, sponsor=sponsor, keys=(key,))

    def sign_plan(self, plan: Sealed) -> Signature:
        """Sign a plan as its proposer."""
        return sealed(plan.media_type, plan.body, self.key, self.scheme).signatures[0]

    def approve(self, report: Sealed, *, lasts: timedelta = timedelta(hours=1), **changes: object) -> Sealed:
        """Sign an approval of a report; `changes` overwrite what the approval says."""
        said = evidence_pb2.Report()
        said.CopyFrom(sealing.open_sealed(report.body, evidence_pb2.Report))
        now = datetime.now(UTC)
        values: dict[str, object] = {
            "approval_id": f"a-{self.person}-{said.report_id}",
            "mission_id": said.mission_id,
            "intent_id": said.intent_id,
            "plan_id": said.plan_id,
            "plan_digest": said.plan_digest,
            "report_id": said.report_id,
            "report_digest": report.digest,
            "executor_id": said.executor_id,
            "workspace_id": said.workspace_id,
            "approver": self.person,
            "decision": evidence_pb2.DECISION_APPROVE,
            "approved_at": timestamp(now),
            "not_before": timestamp(now - timedelta(seconds=1)),
            "expires_at": timestamp(now + lasts),
            "nonce": "once",
            "policy_digest": said.policy_digest,
            **changes,
        }
        body = sealing.seal(evidence_pb2.Approval(**values))  # type: ignore[arg-type]  # tests overwrite with anything
        return sealed(sealing.APPROVAL, body, self.key, self.scheme)


def is_hardware(public_key: str) -> bool:
    """Tell whether a public key is one of a security key."""
    return load_public_key(public_key).hardware


def check_signature(document: Sealed, signature: Signature, public_key: str) -> None:
    """Check a signature over a document.

    Raises:
        SignatureError: it does not hold.
    """
    verify(
        load_public_key(public_key),
        scheme=signature.scheme,
        signature=signature.signature,
        media_type=document.media_type,
        body=document.body,
        extra=b"",
    )
