"""Whom the executor trusts and what it demands, as its operator wrote it into the trust file."""

import json
from dataclasses import dataclass, field
from datetime import timedelta

from executor.domain.report import SelfApproval
from gonogo.digests import digest

MIB = 1024 * 1024
WEEK_SECONDS = 7 * 24 * 60 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A public key and the one signature scheme it is taken for."""

    key_id: str
    scheme: str
    public_key: str
    """OpenSSH's one-line form, without a comment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who may approve."""

    person_id: str
    keys: tuple[TrustedKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the executor demands and allows. Built without arguments it is that of a file without a policy."""

    approvals_required: int = 0
    """Distinct persons; 0 means that there is no policy, so that nothing can be approved or dry run."""
    self_approval: SelfApproval = SelfApproval.REFUSED
    max_approval_seconds: int = 86_400
    hidden: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    max_content_bytes: int = MIB
    max_change_bytes: int = 4096 * MIB
    max_dry_runs: int = 4
    """At once."""
    may_dry_run: tuple[str, ...] | None = None
    """The orchestrators that may ask for dry runs; None for all that the trust file lists."""
    report_seconds: int = WEEK_SECONDS
    """How long a report may be executed after it was issued; its contents are kept as long."""
    checkpoint_seconds: int = WEEK_SECONDS
    """How long the checkpoints of an ended execution are kept: so long it can be undone."""

    @property
    def report_lifetime(self) -> timedelta:
        """How long a report may be executed."""
        return timedelta(seconds=self.report_seconds)

    @property
    def checkpoint_lifetime(self) -> timedelta:
        """How long a checkpoint is kept."""
        return timedelta(seconds=self.checkpoint_seconds)

    @property
    def in_force(self) -> bool:
        """Whether the operator wrote a policy at all."""
        return self.approvals_required > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The whole trust file."""

    executor_id: str
    orchestrators: tuple[str, ...]
    policy: Policy
    persons: tuple[Person, ...]
    policy_digest: str = field(init=False)
    """Names the policy and the persons it counts; part of every report, approval and receipt."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy_digest", digest(_canonical(self.policy, self.persons)))

    @property
    def dry_runners(self) -> frozenset[str]:
        """The orchestrators that may ask for dry runs."""
        listed = frozenset(self.orchestrators)
        return listed if self.policy.may_dry_run is None else listed & frozenset(self.policy.may_dry_run)


def _canonical(policy: Policy, persons: tuple[Person, ...]) -> bytes:
    value = {
        "approvals_required": policy.approvals_required,
        "self_approval": policy.self_approval.value,
        "max_approval_seconds": policy.max_approval_seconds,
        "hidden": list(policy.hidden),
        "volatile": list(policy.volatile),
        "max_content_bytes": policy.max_content_bytes,
        "max_change_bytes": policy.max_change_bytes,
        "max_dry_runs": policy.max_dry_runs,
        "may_dry_run": policy.may_dry_run if policy.may_dry_run is None else sorted(policy.may_dry_run),
        "report_seconds": policy.report_seconds,
        "checkpoint_seconds": policy.checkpoint_seconds,
        "persons": {
            person.person_id: sorted([key.scheme, key.public_key] for key in person.keys) for person in persons
        },
    }
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
