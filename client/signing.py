"""An approver's keys and signatures: what is signed is always a mission that was verified before."""

import base64
import getpass
import secrets
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from client.errors import ClientError, KeyFileError, TerminalNeededError
from client.state import StateDirectory
from client.verification import VerifiedMission
from gonogo import sealing
from gonogo.signatures import SSHSIG, PublicKey, SignatureError, SigningKey, load_public_key, load_signing_key
from gonogo.v1 import evidence_pb2, sealed_pb2

# The executor's clock may be a little behind this one's.
CLOCK_SKEW = timedelta(seconds=60)
DEFAULT_LIFETIME = timedelta(hours=1)
MAX_KEY_FILE = 64 * 1024
ENCRYPTED_MARKS = ("password-protected", "passphrase", "password")


class ApproverKey(Protocol):
    """A key that can sign, wherever its private half is: in a file, in an agent, in a security key."""

    @property
    def public(self) -> PublicKey: ...

    def sign(self, scheme: str, media_type: str, body: bytes) -> bytes:
        """Sign a sealed document; whoever must touch something is waited for.

        Raises:
            ClientError: whoever holds the private half did not sign; nothing was handed in.
            SignatureError: the scheme is not known, or the key can not sign in it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A key, the person it stands for, and the scheme under which the executor knows it."""

    key: ApproverKey
    person: str
    scheme: str = SSHSIG


def sign_approval(
    mission: VerifiedMission,
    signer: Signer,
    *,
    comment: str = "",
    lifetime: timedelta = DEFAULT_LIFETIME,
    audit_checkpoint: str = "",
    now: datetime | None = None,
) -> sealed_pb2.Sealed:
    """Seal and sign an approval of exactly the plan and report that were verified.

    `audit_checkpoint` is the executor's newest one that this side checked; empty where it keeps none.
    """
    moment = now or datetime.now(UTC)
    approval = evidence_pb2.Approval(
        approval_id=new_id("a"),
        mission_id=mission.plan.mission_id,
        intent_id=mission.plan.intent_id,
        plan_id=mission.plan.plan_id,
        plan_digest=mission.plan_digest,
        report_id=mission.report.report_id,
        report_digest=mission.report_digest,
        executor_id=mission.plan.executor_id,
        workspace_id=mission.plan.workspace_id,
        approver=signer.person,
        decision=evidence_pb2.DECISION_APPROVE,
        nonce=secrets.token_hex(16),
        policy_digest=mission.report.policy_digest,
        comment=comment,
        audit_checkpoint=audit_checkpoint,
    )
    approval.approved_at.FromDatetime(moment)
    approval.not_before.FromDatetime(moment - CLOCK_SKEW)
    approval.expires_at.FromDatetime(moment + lifetime)
    body = sealing.seal(approval)
    blob = signer.key.sign(signer.scheme, sealing.APPROVAL, body)
    signature = sealed_pb2.Signature(key_id=signer.key.public.key_id, scheme=signer.scheme, signature=blob)
    return sealed_pb2.Sealed(media_type=sealing.APPROVAL, body=body, signatures=[signature])


def new_id(prefix: str) -> str:
    """Return a new id that sorts by time: the prefix, 48 bits of milliseconds and 52 random bits in base 32."""
    milliseconds = int(datetime.now(UTC).timestamp() * 1000)
    raw = milliseconds.to_bytes(6, "big") + secrets.token_bytes(6)
    return f"{prefix}-{base64.b32hexencode(raw).decode().rstrip('=').lower()}"


def read_signing_key(path: Path, ask: Callable[[str], str] | None = None) -> SigningKey:
    """Read an OpenSSH Ed25519 private key; an encrypted one asks for its passphrase.

    Raises:
        KeyFileError: the file is missing, no such key, or the passphrase is wrong.
        TerminalNeededError: the key is encrypted and there is no terminal.
    """
    return parse_signing_key(path, read_key_file(path), ask)


def parse_signing_key(path: Path, data: bytes, ask: Callable[[str], str] | None = None) -> SigningKey:
    """Read a private key file whose bytes are there already; raises as `read_signing_key` does."""
    try:
        return load_signing_key(data)
    except SignatureError as error:
        if not any(mark in str(error).lower() for mark in ENCRYPTED_MARKS):
            raise KeyFileError("KEY_UNUSABLE", f"{path}: {error}", _KEY_REMEDY) from None
    passphrase = (ask or ask_passphrase)(f"Passphrase for {path}: ")
    try:
        return load_signing_key(data, passphrase.encode())
    except SignatureError as error:
        raise KeyFileError("KEY_UNUSABLE", f"{path}: {error}", "check the passphrase and try again") from None


_KEY_REMEDY = (
    "give with --key FILE an OpenSSH Ed25519 private key (ssh-keygen -t ed25519 makes one), a security key's file "
    "(-t ed25519-sk), or the .pub of a key in your ssh-agent"
)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key file in OpenSSH's one-line form.

    Raises:
        KeyFileError: missing, or not such a key.
    """
    return parse_public_key(path, read_key_file(path))


def parse_public_key(path: Path, data: bytes) -> PublicKey:
    """Read a public key file whose bytes are there already; raises as `read_public_key` does."""
    try:
        return load_public_key(data.decode("utf-8", "replace").strip())
    except SignatureError as error:
        remedy = "give the .pub file of an ssh-ed25519 or sk-ssh-ed25519@openssh.com key, in OpenSSH's one-line form"
        raise KeyFileError("KEY_UNUSABLE", f"{path}: {error}", remedy) from None


def ask_passphrase(prompt: str) -> str:
    """Ask on the terminal without showing what is typed."""
    if not sys.stdin.isatty():
        remedy = "run this on a terminal, or use a key file without a passphrase"
        raise TerminalNeededError("NO_TERMINAL", "the key has a passphrase and there is no terminal to ask on", remedy)
    return getpass.getpass(prompt)


def owner_of_key(state: StateDirectory, key_id: str) -> "KeyOwner | None":
    """Return whose a key is by the trust file in the state directory, and what for; None where it does not say."""
    for listed in _listed_keys(state):
        if listed.public.key_id == key_id:
            return KeyOwner(person=listed.person, scheme=listed.scheme, approves=listed.approves)
    return None


def trusted_keys(state: StateDirectory) -> dict[str, PublicKey]:
    """Return the approvers' public keys of the trust file in the state directory, by fingerprint."""
    return {listed.public.key_id: listed.public for listed in _listed_keys(state) if listed.approves}


def require_approving(owner: "KeyOwner", path: Path) -> None:
    """Refuse a key that is not for approving, before anything is signed with it.

    Raises:
        KeyFileError: it is an agent's, or is listed for proposing.
    """
    if not owner.approves:
        message = f"the key {path} of {owner.person} can propose and not approve"
        remedy = "use a key that the executor's trust file lists for approving: --key FILE"
        raise KeyFileError("APPROVER_UNKNOWN", message, remedy)


def unknown_key(key: PublicKey, path: Path) -> ClientError:
    """Return the error for a key that belongs to nobody the executor knows."""
    message = f"the key {path} ({key.key_id}) belongs to no person in the executor's trust file"
    remedy = "use a listed key, or have the executor's operator add it: gonogo trust add --person ID --key FILE.pub"
    return KeyFileError("APPROVER_UNKNOWN", message, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOwner:
    """Whose a key is, and what the executor takes it for."""

    person: str
    scheme: str
    approves: bool
    """Whether it may approve, and not only propose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ListedKey:
    """One key as the trust file lists it."""

    person: str
    scheme: str
    public: PublicKey
    approves: bool


def _listed_keys(state: StateDirectory) -> list[_ListedKey]:
    """Return the keys that can be read; the executor, not this side, judges the file."""
    try:
        persons = tomllib.loads(state.trust.read_text("utf-8")).get("persons")
    except (OSError, ValueError):
        return []
    entries = [one for one in persons if isinstance(one, dict)] if isinstance(persons, list) else []
    pairs = [(one, key) for one in entries for key in _dictionaries(one.get("keys"))]
    found: list[_ListedKey] = []
    for person, key in pairs:
        try:
            public = load_public_key(str(key.get("public_key", "")))
        except SignatureError:
            continue
        approves = person.get("kind", "person") == "person" and key.get("use", "approve") == "approve"
        name, scheme = str(person.get("id", "")), str(key.get("scheme", ""))
        found.append(_ListedKey(person=name, scheme=scheme, public=public, approves=approves))
    return found


def _dictionaries(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def read_key_file(path: Path) -> bytes:
    """Read a key file's bytes.

    Raises:
        KeyFileError: it is missing, can not be read, or is far larger than any key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise KeyFileError("KEY_UNUSABLE", f"{path}: {error.strerror or error}", _KEY_REMEDY) from None
    if len(data) > MAX_KEY_FILE:
        raise KeyFileError("KEY_UNUSABLE", f"{path}: too large for a key file", _KEY_REMEDY)
    return data
