"""Attacks by those who are let in: an approver whose own documents harm others, callers who look and who hold on."""

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from executor.adapters.anchor import Anchor
from executor.adapters.audit_check import check_all
from executor.adapters.audit_reader import read_audit
from executor.adapters.ledger_audit import AuditedState
from executor.adapters.trust_file import parse_trust
from executor.adapters.trust_tables import TrustFileError
from executor.domain.errors import StoreError
from executor.domain.revocation import KEPT_REASON
from executor.domain.sealed import SealedBytes
from executor.entrypoints.health_port import HealthPort
from executor.runner.audit import LogSigner
from executor.runner.executions import RefusedError
from gonogo import sealing
from gonogo.notes import EXECUTOR, log_origin
from gonogo.signatures import SSHSIG
from gonogo.ssh_keys import public_key_of_blob
from gonogo.v1 import evidence_pb2
from tests.attacks.target import Target
from tests.attacks.test_scenarios import brought_back, copied, eventually
from tests.fakes.security_key import sk_blob
from tests.unit.executor.house import EXECUTOR_ID, ignore

DENY = evidence_pb2.REVOCATION_KIND_DENY
ODD = ["\x00", "a\nb", "\U0001f4a5" * 200, '"', "\u2028", "\ufeff", "\\", "\u202e", "a\x00b", "\x7f", "x" * 5_000]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """An executor as it is started."""
    target = Target(tmp_path)
    yield target
    target.close()


class TestApprovers:
    @pytest.mark.parametrize("field", ["nonce", "approval_id"])
    def test_somebody_elses_nonce_is_refused_in_words(self, target: Target, field: str) -> None:
        """An approver who copies another's nonce or id gets a refusal that says so, and no fault of the ledger."""
        request = target.deleting(target.bob)
        assert request.report is not None
        bobs = sealing.open_sealed(request.approvals[0].body, evidence_pb2.Approval)
        copy = target.approve(request.plan, request.report, by=target.carol, **{field: getattr(bobs, field)})
        both = dataclasses.replace(request, approvals=(*request.approvals, copy))
        with pytest.raises(RefusedError) as caught:
            target.core.execute(both, ignore)
        assert caught.value.fault.reason == "NOT_APPROVED"
        assert "same id or the same nonce" in caught.value.fault.message

    def test_a_long_no_is_kept_once(self, target: Target) -> None:
        """Of a denial as long as it may be the ledger keeps the document, and beside it no copy of its length."""
        good = target.good()
        assert good.report is not None
        long = target.approve(
            good.plan, good.report, by=target.carol, decision=evidence_pb2.DECISION_DENY, comment="y" * 60_000
        )
        assert target.reason_of(target.again(good, approvals=(long,))) == "NOT_APPROVED"
        target.core.revoke(target.revocation(by=target.bob, mission="m-2", reason="z" * 15_000))
        assert [len(row[0]) < KEPT_REASON + 100 for row in rows(target, "SELECT reason FROM revocations")] == [True] * 2
        leaves = rows(target, 'SELECT leaf FROM audit_entries WHERE leaf LIKE \'{"type":"revoked"%\'')
        assert [len(row[0]) < 2 * KEPT_REASON for row in leaves] == [True] * 2
        target.restart()
        check_the_log(target)

    def test_a_forged_checkpoint_harms_its_own_request_only(self, target: Target) -> None:
        """An approver whose checkpoint is forged has that request refused; the next one goes through."""
        good = target.good()
        assert good.report is not None
        forged = target.approve(good.plan, good.report, by=target.carol, audit_checkpoint="gonogo.local/x\n1\nAA==\n")
        assert target.reason_of(target.again(good, approvals=(*good.approvals, forged))) == "AUDIT_FORKED"
        target.core.check_caller("spiffe://gonogo.local/orchestrator")
        assert all(finding.name != "audit-log" for finding in target.core.describe().capabilities.findings)
        target.run(target.again(good))

    def test_one_key_dressed_up_as_hardware_is_still_one(self, target: Target) -> None:
        """Bob's key written as a security key's has another fingerprint; it can not be a second person's."""
        point = target.bob.key.public.key.public_bytes_raw()
        dressed = public_key_of_blob(sk_blob(point, b"ssh:")).line
        mallory = f'[[persons]]\nid = "mallory"\n[[persons.keys]]\nscheme = "{SSHSIG}"\npublic_key = "{dressed}"\n'
        with pytest.raises(TrustFileError, match="belongs to bob and to mallory"):
            parse_trust(target.trust_file(2, more=mallory).encode())


class TestOrchestrators:
    def test_no_refusal_keeps_the_executor_from_starting(self, target: Target) -> None:
        """Whatever text a refused request carries, the audit log holds and the executor starts again."""
        good = target.good()
        for odd in ODD:
            for names in ({"mission_id": odd}, {"intent_id": odd, "workspace_id": odd, "executor_id": odd}):
                named = dataclasses.replace(good.named, **names)
                target.refused(target.again(good, named=named))
        target.core.revoke(target.revocation(by=target.bob, mission="m-odd", reason="".join(ODD)[:2_000]))
        target.restart()
        check_the_log(target)
        target.run(target.again(good))

    def test_one_refusal_leaves_little_behind(self, target: Target) -> None:
        """A refused request costs the disk two kilobytes or so, however large it was."""
        good = target.good()
        large = SealedBytes(media_type=sealing.PLAN, body=b"x" * 1_000_000)
        before = used(target)
        for _ in range(50):
            target.refused(target.again(good, plan=large, approvals=()))
        assert (used(target) - before) / 50 < 4_096

    @pytest.mark.parametrize("gone", [True, False])
    def test_a_refusal_does_not_tell_where_the_trust_file_lies(self, target: Target, *, gone: bool) -> None:
        """Orchestrators learn that the file is no good, and no path of the executor's host."""
        request = target.good()
        if gone:
            target.settings.trust_file.unlink()
        else:
            target.write_trust("version = ")
        assert eventually(target, request) == "STATE_FORBIDS"
        refusal = sealing.open_sealed(target.refused(target.again(request)).body, evidence_pb2.Refusal)
        assert str(target.root) not in refusal.message + refusal.remedy
        assert "trust" in refusal.message
        target.write_trust(target.trust_file(1))

    def test_nor_where_the_anchor_lies(self, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the anchor can not be written the refusal says so without its path."""
        monkeypatch.setattr(Anchor, "_stored", lambda *_: True)
        anchor = target.ledger._anchor
        assert isinstance(anchor, Anchor)
        with pytest.raises(StoreError):
            anchor._write()
        refusal = sealing.open_sealed(target.refused(target.good()).body, evidence_pb2.Refusal)
        assert "anchor" in refusal.message
        assert str(target.root) not in refusal.message + refusal.remedy


class TestRestored:
    def test_no_fault_between_claim_and_anchor_is_told_as_a_refusal(
        self, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the anchor is to remember is known before the claim is durable: then nothing can fail any more."""
        request = target.good()
        seen: list[AuditedState] = []
        anchor = target.ledger._anchor
        assert isinstance(anchor, Anchor)
        move = anchor.move

        def watched(state: AuditedState) -> None:
            seen.append(state)
            assert state == target.ledger.audited_state()
            move(state)

        monkeypatch.setattr(anchor, "move", watched)
        target.run(request)
        assert seen[0].claims == 1

    def test_only_what_is_approved_anew_runs(self, target: Target, tmp_path: Path) -> None:
        """After an older ledger was brought back a denial is forgotten, and so is every report that it was about.

        Nothing goes on from before: only a new dry run that persons approve anew can be executed.
        """
        request = target.good()
        copied(target, tmp_path / "copy")
        target.core.revoke(target.revocation(by=target.carol, kind=DENY))
        brought_back(target, tmp_path / "copy")
        assert target.reason_of(target.again(request)) == "REPORT_UNKNOWN"
        report = target.dry_run(request.plan)
        assert target.reason_of(target.again(request, report=report)) == "NOT_APPROVED"

    def test_a_revocation_is_anchored_when_it_is_answered(self, target: Target) -> None:
        """Whoever was answered was told what a ledger brought back afterwards can not undo unseen."""
        target.good()
        target.core.revoke(target.revocation(by=target.bob))
        anchor = target.ledger._anchor
        assert isinstance(anchor, Anchor)
        assert anchor._durable >= anchor._moved
        assert anchor._wanted is not None
        assert anchor._wanted.audit_size >= target.ledger.audit_size

    def test_a_broken_anchor_keeps_nobody_from_revoking(self, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
        """A revocation holds also where it can not be remembered outside of the ledger."""
        request = target.good()
        monkeypatch.setattr(Anchor, "_stored", lambda *_: True)
        assert target.core.revoke(target.revocation(by=target.bob)).in_time
        monkeypatch.undo()
        assert target.reason_of(target.again(request)) == "APPROVAL_REVOKED"


def test_nobody_holds_the_health_port_for_ever() -> None:
    """Whoever watches is turned away at once, so that there is always room for a probe."""

    async def probe() -> tuple[int, grpc.StatusCode]:
        checks = health.aio.HealthServicer()
        await checks.set("", health_pb2.HealthCheckResponse.SERVING)
        port = HealthPort(checks, "127.0.0.1:0")
        address = await port.start()
        async with grpc.aio.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Watch(health_pb2.HealthCheckRequest(), timeout=5):
                    pass
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        await port.stop()
        return answer.status, caught.value.code()

    assert asyncio.run(probe()) == (health_pb2.HealthCheckResponse.SERVING, grpc.StatusCode.UNIMPLEMENTED)


def check_the_log(target: Target) -> None:
    """Look at every entry and every record, as the command on the host does."""
    with read_audit(target.settings.ledger) as ledger:
        assert ledger is not None
        check_all(ledger, LogSigner(target.executor_key, log_origin(EXECUTOR, EXECUTOR_ID)))


def rows(target: Target, query: str) -> list[tuple[str]]:
    """What the ledger holds."""
    return list(target.ledger._connection.execute(query).fetchall())


def used(target: Target) -> int:
    """The bytes of the ledger's file, all of it checkpointed."""
    target.ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return target.settings.ledger.stat().st_size
