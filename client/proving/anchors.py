"""What a proof rests on besides the bundle: public keys and kept checkpoints, all of them the verifier's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gonogo.notes import Checkpoint
from gonogo.signatures import PublicKey

Keys = Mapping[str, PublicKey]
"""Public keys by fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """What the verifier brings."""

    executor: PublicKey
    orchestrator: PublicKey | None = None
    """Without it the orchestrator's log is checked under the key that the bundle names, and the proof says so."""
    approvers: Keys = field(default_factory=dict)
    """For files without a sealed policy."""
    kept: Mapping[str, Checkpoint] = field(default_factory=dict)
    """Checkpoints that this side keeps, by origin."""
