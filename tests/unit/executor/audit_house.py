"""A ledger with its audit log and its anchor on real files, and the log of an orchestrator that is played."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from executor.adapters.anchor import Anchor
from executor.adapters.audit_check import check_at_start
from executor.adapters.epochs import begin
from executor.adapters.ledger_sqlite import SqliteLedger
from executor.domain.receipt import EffectRecord, EffectState, Outcome, Refusal
from executor.runner.audit import Audit, LogSigner
from gonogo import sealing
from gonogo.digests import digest
from gonogo.merkle import Frontier, consistency_path, leaf_hash
from gonogo.notes import EXECUTOR, ORCHESTRATOR, checkpoint_text, log_origin, sign_note
from gonogo.signatures import SigningKey, new_signing_key
from tests.conformance import ledger_values as values

EXECUTOR_ID = "box"
ORIGIN = log_origin(EXECUTOR, EXECUTOR_ID)
CALLER = "spiffe://gonogo.local/orchestrator"
NOW = datetime(2026, 3, 5, tzinfo=UTC)


def refusal(number: int) -> Refusal:
    """A refusal of a mission of its own."""
    return Refusal(
        refusal_id=f"rf-{number}",
        mission_id=f"m-{number}",
        plan_digest=digest(b"plan"),
        report_digest="",
        executor_id=EXECUTOR_ID,
        gate=3,
        abort_reason="NOT_APPROVED",
        message="nobody approved",
        remedy="approve it",
        paths=(),
        path_count=0,
        refused_at=values.TIME,
    )


class LogHouse:
    """One executor's record: the ledger, its audit log and its anchor."""

    def __init__(self, root: Path, key: SigningKey | None = None) -> None:
        self.path = root / "executor" / "ledger.db"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.anchor_path = root / "anchor" / "box.json"
        self.key = key or new_signing_key()
        self.log_key = ""
        self.notes: dict[int, str] = {}
        """Checkpoints that others keep, by size."""
        self.open()

    def open(self) -> None:
        """Start as the executor does."""
        self.signer = LogSigner(self.key, ORIGIN)
        check_at_start(self.path, self.signer)
        self.ledger = SqliteLedger(self.path, sign_root=self.signer)
        try:
            self.anchor = Anchor(self.anchor_path)
        except BaseException:
            self.ledger.close()
            raise
        try:
            self.why = begin(self.ledger, self.anchor, path=self.path, executor_id=EXECUTOR_ID, now=NOW)
        except BaseException:
            self.close()
            raise
        self.audit = Audit(self.ledger, self.signer, log_key_of=lambda _: self.log_key, now=lambda: NOW)

    def close(self) -> None:
        """End."""
        self.anchor.close()
        self.ledger.close()

    def restart(self) -> str:
        """End and start again; returns why an epoch began, empty where none did."""
        self.close()
        self.open()
        return self.why

    def issue(self, number: int) -> str:
        """Issue a report and return its digest."""
        report = values.report(mission_id=f"m-{number}", report_id=f"r-{number}", ledger_epoch=self.ledger.epoch)
        sealed = values.sealed(sealing.REPORT, b'{"report":%d}' % number)
        request = values.request(f"q-{number}", sealed.digest)
        self.ledger.issue_report(report, sealed, request=request, small_objects={})
        return sealed.digest

    def claim(self, number: int) -> None:
        """Claim a mission."""
        assert (
            self.ledger.claim(values.claim(number), values.request(f"x-{number}", f"x-{number}"), values.PLAN) is None
        )

    def end(self, number: int) -> None:
        """Record events of an execution while it runs, and its end."""
        first, last = (replace(values.event(sequence), mission_id=f"m-{number}") for sequence in (1, 2))
        self.ledger.append_events(f"x-{number}", [first])
        receipt = values.sealed(sealing.RECEIPT, b'{"receipt":%d}' % number)
        self.ledger.finish(f"x-{number}", outcome=Outcome.SUCCESS, ended_at=values.TIME, receipt=receipt, events=[last])

    def mission(self, number: int) -> None:
        """Everything that a mission records: report, claim, events, end."""
        self.issue(number)
        self.claim(number)
        self.end(number)

    def controlled(self, number: int) -> None:
        """A mission that people control: a control with a signed word, an effect outside, and a second segment."""
        self.issue(number)
        self.claim(number)
        of = {"execution_id": f"x-{number}", "mission_id": f"m-{number}"}
        word = {"document": values.WORD, "document_id": f"w-{number}", "nonce": f"wn-{number}"}
        assert self.ledger.record_control(values.control(number, **of, **word)) is None
        effect = values.effect(1, **of, effect_id=f"x-{number}-s1-1")
        self.ledger.claim_effect(effect)
        self.ledger.settle_effect(effect.effect_id, EffectRecord(state=EffectState.DONE), values.TIME)
        repair = values.claim(number + 1000, **of, segment=1)
        assert self.ledger.claim(repair, values.request(f"r-{number}", f"x-{number}"), values.PLAN) is None
        self.end(number)

    def refuse(self, number: int) -> None:
        """Record a refusal."""
        self.ledger.record_refusal(refusal(number), values.sealed(sealing.REFUSAL, b'{"refusal":%d}' % number))

    def tamper(self, *statements: str) -> None:
        """Write to the closed ledger's file as somebody else would, guard-rails taken away."""
        self.write(*((statement, [()]) for statement in statements))

    def write(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        """Run statements, each with its rows, on the closed ledger's file, guard-rails taken away."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
            for name in names:
                connection.execute(f"DROP TRIGGER {name}")
            for statement, rows in statements:
                assert connection.executemany(statement, rows).rowcount, statement

    def hurry(self) -> None:
        """Let no commit wait for the disk from now on."""
        self.ledger._connection.execute("PRAGMA synchronous = OFF")


class PlayedLog:
    """An orchestrator's audit log: leaves, signed checkpoints and proofs."""

    def __init__(self, name: str = "one") -> None:
        self.origin = log_origin(ORCHESTRATOR, name)
        self.key = new_signing_key()
        self.levels: dict[int, list[bytes]] = {0: []}
        self.frontier = Frontier()

    def grow(self, count: int, leaf: bytes = b"leaf") -> "PlayedLog":
        """Append some leaves."""
        for _ in range(count):
            hashed = leaf_hash(b"%b %d" % (leaf, self.frontier.size))
            self.levels[0].append(hashed)
            for tile in self.frontier.append(hashed):
                self.levels.setdefault(tile.level, []).append(tile.root)
        return self

    def note(self) -> str:
        """The newest checkpoint."""
        text = checkpoint_text(self.origin, self.frontier.size, self.frontier.root())
        return sign_note(text, self.key, self.origin)

    def proof(self, size: int) -> list[bytes]:
        """That the log continues what it was."""
        return consistency_path(size, self.frontier.size, self.hashes_of)

    def hashes_of(self, level: int, first: int, count: int) -> Sequence[bytes]:
        """Read stored hashes."""
        return self.levels.get(level, [])[first : first + count]
