"""The hostile orchestrator at the door of a real executor: every attack over gRPC, with the orchestrator's certificate.

The attacks are those of tests/attacks, by the same simulator; here they arrive as bytes at a process that was started
as its operator starts it. Then come those that only a wire has: other certificates, bent messages, floods, and the
listener for revocations. What takes a restart on other files is in test_attacks_restarted.py.
"""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from executor.adapters.wire import sealed_to_proto
from executor.domain.sealed import SealedBytes
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.v1 import evidence_pb2, executor_pb2, executor_pb2_grpc
from tests.attacks.hostile import HostileOrchestrator as Hostile
from tests.attacks.test_refused import ATTACKS
from tests.contract.executor_server import ORCHESTRATOR, Authority
from tests.contract.test_executor_grpc import message
from tests.e2e.attacked import (
    CLIENT,
    EXECUTE,
    IN_THE_LEDGER,
    METHODS,
    SECONDS,
    Code,
    ServedTarget,
    check,
    code,
    failing,
    failure,
    refused,
    told,
)
from tests.e2e.wire_house import ledger_rows
from tests.unit.executor.house import stamp

pytestmark = pytest.mark.long

GET_EXECUTOR, DRY_RUN = METHODS[:2]
REVOKE = "/gonogo.v1.RevocationService/Revoke"
MIB = 1024 * 1024
FLOOD = 200
NASTY = "\x1b[31m\u202e\x00" * (MIB // 16)
ROLL_BACK = re.compile(rb'"FAILURE_POLICY_ROLL_BACK"')

# Each of them leaves time behind that nothing brings back, so they have an executor of their own, in this order.
CLOCKS = [
    (Hostile.a_clock_set_back, "CLOCK_BEHIND"),
    (Hostile.a_late_delivery, "APPROVAL_EXPIRED"),
    (Hostile.a_clock_set_forward_and_back, "CLOCK_BEHIND"),
    (Hostile.a_delivery_after_the_reports_life, "REPORT_UNKNOWN"),
]
OVER_THE_WIRE = [
    pytest.param(attack, reason, id=attack.__name__) for attack, reason, _ in ATTACKS if (attack, reason) not in CLOCKS
]

BENT_PLANS = [
    pytest.param(change, reason, code, id=name)
    for name, change, reason, code in (
        ("camelCase", lambda body: body.replace(b'"plan_id"', b'"planId"'), "MALFORMED", Code.INVALID_ARGUMENT),
        ("a number for a name", lambda body: ROLL_BACK.sub(b"2", body), "MALFORMED", Code.INVALID_ARGUMENT),
        ("an unknown name", lambda body: ROLL_BACK.sub(b'"LUCK"', body), "MALFORMED", Code.INVALID_ARGUMENT),
        ("a key twice", lambda body: b'{"workspace_id":"other",' + body[1:], "MALFORMED", Code.INVALID_ARGUMENT),
        ("an extra field", lambda body: b'{"approved":true,' + body[1:], "MALFORMED", Code.INVALID_ARGUMENT),
        ("another executor", lambda body: body.replace(b"-test", b"-else"), "EXECUTOR_MISMATCH", Code.INVALID_ARGUMENT),
        (
            "another proposer",
            lambda body: body.replace(b'"alice"', b'"bob"'),
            "SIGNATURE_INVALID",
            Code.FAILED_PRECONDITION,
        ),
    )
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedTarget]:
    """One executor's process for all attacks that leave it as it was."""
    target = ServedTarget(tmp_path_factory.mktemp("served"))
    yield target
    target.close()


@pytest.fixture
def target(served: ServedTarget) -> Iterator[ServedTarget]:
    """It, with missions and folders for one attack; its trust file is mended afterwards where that was changed."""
    served.begin()
    yield served
    if served.settings.trust_file.read_text() != served.trust_file(1):
        served.mend()


def still_good(target: ServedTarget) -> None:
    """The executor is none the worse: the next honest mission goes through."""
    target.begin()
    target.run(target.good())
    assert (target.site / "hello.txt").read_text() == "hello\n"


class TestTable:
    @pytest.mark.parametrize(("attack", "reason"), OVER_THE_WIRE)
    def test_the_attack_is_refused_and_nothing_changes(
        self, target: ServedTarget, attack: Callable[[Hostile], ExecuteInput], reason: str
    ) -> None:
        """Code, reason and details are the design's; the refusal is signed, and proven to be in the audit log."""
        refused(target, attack(Hostile(target)), reason)

    def test_the_attacks_of_the_clock(self, tmp_path: Path) -> None:
        """On a machine whose clock is set to and fro each is refused with its reason, in a log that goes on."""
        target = ServedTarget(tmp_path / "clocked", clocked=True)
        try:
            prepared = []
            for attack, reason in CLOCKS:
                target.begin()
                prepared.append((attack, Hostile(target), reason))
            for attack, hostile, reason in prepared:
                refused(target, attack(hostile), reason)
                target.wall.offset = timedelta(0)
        finally:
            target.close()

    def test_every_attack_of_the_simulator_is_tried(self) -> None:
        """Nothing of the table is left out over the wire."""
        assert len(OVER_THE_WIRE) + len(CLOCKS) == len(ATTACKS)

    def test_the_good_request_is_good(self, target: ServedTarget) -> None:
        """What all attacks start from is executed, and so is a deletion that two persons approved."""
        target.run(Hostile(target).good)
        assert (target.site / "hello.txt").read_text() == "hello\n"
        target.run(target.deleting(target.bob, target.carol))
        kept = target.roots[0] / "kept.txt"
        assert not kept.exists()
        kept.write_text("kept\n")

    def test_an_approval_that_is_held_back_until_it_has_expired(self, target: ServedTarget) -> None:
        """By the machine's own clock: good when it was given, worth nothing when it is delivered."""
        plan = target.signed_plan()
        report = target.dry_run(plan)
        end = datetime.now(UTC) + timedelta(seconds=0.4)
        request = target.request(plan, report, target.approve(plan, report, by=target.bob, expires_at=stamp(end)))
        time.sleep(0.5)
        refused(target, request, "APPROVAL_EXPIRED")

    @pytest.mark.parametrize(("change", "reason", "status"), BENT_PLANS)
    def test_a_bent_plan_is_not_even_dry_run(
        self, target: ServedTarget, change: Callable[[bytes], bytes], reason: str, status: grpc.StatusCode
    ) -> None:
        """There is no report of it that anybody could be shown, and nothing was touched."""
        body = target.signed_plan().body
        assert change(body) != body
        before = target.held()
        answer = target.dry_run_refused(target.alice.sign(sealing.PLAN, change(body)))
        assert (answer.reason, answer.code, answer.info.domain) == (reason, status, "gonogo")
        assert answer.remedy
        assert target.held() == before


class TestPeers:
    @pytest.mark.parametrize(
        "identities",
        [
            pytest.param([f"{CLIENT}alice"], id="a client"),
            pytest.param(["spiffe://gonogo.local/executor"], id="the executor itself"),
            pytest.param([f"{ORCHESTRATOR}-2"], id="another orchestrator"),
            pytest.param([f"{ORCHESTRATOR}/replica"], id="beneath the orchestrator"),
            pytest.param(["spiffe://gonogo.local/Orchestrator"], id="in another case"),
            pytest.param(["spiffe://elsewhere.local/orchestrator"], id="of another domain"),
            pytest.param([ORCHESTRATOR, f"{CLIENT}alice"], id="two at once"),
            pytest.param([], id="nobody"),
        ],
    )
    def test_another_certificate_of_the_same_authority(self, target: ServedTarget, identities: list[str]) -> None:
        """Every method refuses whoever the trust file does not name, even with a request that is good."""
        target.authority.issue("stranger", *identities)
        request = target.good()
        data = {DRY_RUN: dry_run_of(target), EXECUTE: message(request)}
        before = target.held()
        with target.channel("stranger") as channel:
            for method in METHODS:
                wanted = data.get(method)
                answer = failure(channel, method, wanted.SerializeToString() if wanted else b"")
                assert (answer.code, answer.reason) == (Code.PERMISSION_DENIED, "PEER_NOT_ALLOWED"), method
                assert answer.sealed is None
        assert target.held() == before
        target.run(request)

    @pytest.mark.parametrize("port", ["address", "revocations"])
    def test_certificates_that_open_no_connection(self, target: ServedTarget, tmp_path: Path, port: str) -> None:
        """A foreign authority's certificate with the very same name, none at all, and plain text: no call is made."""
        foreign = Authority(tmp_path / "foreign")
        foreign.issue("orchestrator", ORCHESTRATOR)
        foreign.issue("carol", f"{CLIENT}carol")
        name = "carol" if port == "revocations" else "orchestrator"
        channels = [
            target.channel(name, port=port, authority=foreign),
            target.channel(None, port=port),
            grpc.insecure_channel(target.addresses[port]),
        ]
        for channel in channels:
            with channel:
                for method in (*METHODS, REVOKE):
                    assert code(channel, method) is Code.UNAVAILABLE

    @pytest.mark.parametrize("port", ["address", "revocations"])
    def test_certificates_that_the_authority_did_not_mean(self, target: ServedTarget, port: str) -> None:
        """One that has expired, and one with the right name that the holder of another certificate issued."""
        name, method = (f"{CLIENT}carol", REVOKE) if port == "revocations" else (ORCHESTRATOR, GET_EXECUTOR)
        target.authority.issue_expired("expired", name)
        target.authority.issue_as("alice", "by-alice", name)
        for one in ("expired", "by-alice"):
            with target.channel(one, port=port) as channel:
                assert code(channel, method) is Code.UNAVAILABLE, one

    def test_an_executor_of_a_foreign_authority_is_not_believed_either(
        self, target: ServedTarget, tmp_path: Path
    ) -> None:
        """Whoever expects another authority makes no call to this executor."""
        foreign = Authority(tmp_path / "foreign")
        foreign.issue("orchestrator", ORCHESTRATOR)
        with target.channel("orchestrator", authority=foreign, trusts=False) as channel:
            assert code(channel, GET_EXECUTOR) is Code.UNAVAILABLE


def dry_run_of(target: ServedTarget) -> executor_pb2.DryRunRequest:
    """A request for a dry run that is good."""
    return executor_pb2.DryRunRequest(request_id=target.next_request(), plan=sealed_to_proto(target.signed_plan()))


class TestMessages:
    UNKNOWN = b"\xfa\x3f\x04\x08\x01\x10\x01"  # field 1023: a message that no contract knows

    def test_unknown_fields_make_nothing_good(self, target: ServedTarget) -> None:
        """A refused request is refused with them, too; a good one does what was approved, and is the same request."""
        request = message(target.good())
        bare = executor_pb2.ExecuteRequest()
        bare.CopyFrom(request)
        bare.request_id += "-bare"
        del bare.approvals[:]
        before = target.held()
        for envelope in (bare, bare.plan, bare.report):
            envelope.MergeFromString(self.UNKNOWN)
        assert self.UNKNOWN in bare.SerializeToString()
        with pytest.raises(grpc.RpcError) as caught:
            target.sent_raw(bare.SerializeToString())
        check(target, told(caught.value), "NOT_APPROVED")
        assert target.held() == before
        for place in (request, request.plan, request.report, request.approvals[0], request.approvals[0].signatures[0]):
            place.MergeFromString(self.UNKNOWN)
        first = target.sent_raw(request.SerializeToString())[-1]
        assert (target.site / "hello.txt").read_text() == "hello\n"
        request.DiscardUnknownFields()
        assert target.sent_raw(request.SerializeToString())[-1].receipt == first.receipt

    @pytest.mark.parametrize(
        ("field", "reason"),
        [("plan", "PLAN_MISMATCH"), ("report", "PLAN_MISMATCH"), ("mission_id", "MISSION_MISMATCH")],
    )
    def test_a_second_value_behind_the_first(self, target: ServedTarget, field: str, reason: str) -> None:
        """A field that comes twice on the wire is what the reader makes of it, and that is what the gates see."""
        good = message(target.good())
        other = message(target.good(mission="m-2", path="evil.txt"))
        second = executor_pb2.ExecuteRequest(request_id=target.next_request())
        if field == "mission_id":
            second.mission_id = other.mission_id
        else:
            getattr(second, field).body = getattr(other, field).body
        before = target.held()
        with pytest.raises(grpc.RpcError) as caught:
            target.sent_raw(good.SerializeToString() + second.SerializeToString())
        check(target, told(caught.value), reason)
        assert target.held() == before

    @pytest.mark.parametrize(
        "data", [b"\xff\xff\xff", b"\x12\xff\xff\xff\xff\x0f", b"\x0c"], ids=["tag", "length", "group"]
    )
    def test_bytes_that_are_no_message(self, target: ServedTarget, data: bytes) -> None:
        """They are refused like anything malformed, at every method, to whoever may call; others hear that first."""
        before, log = target.held(), target.log.read_text()
        for name, port, method, reason in (
            *(("orchestrator", "address", method, "MALFORMED") for method in METHODS),
            ("carol", "address", EXECUTE, "PEER_NOT_ALLOWED"),
            ("carol", "revocations", REVOKE, "MALFORMED"),
            ("orchestrator", "revocations", REVOKE, "PEER_NOT_ALLOWED"),
        ):
            with target.channel(name, port=port) as channel:
                answer = failure(channel, method, data)
            status = Code.INVALID_ARGUMENT if reason == "MALFORMED" else Code.PERMISSION_DENIED
            assert (answer.reason, answer.code, bool(answer.remedy)) == (reason, status, True), method
        assert target.held() == before
        assert "Traceback" not in target.log.read_text().removeprefix(log)

    @pytest.mark.parametrize(
        ("place", "reason"),
        [
            ("request_id", "MALFORMED"),
            ("mission_id", "MALFORMED"),
            ("intent_id", "MISSION_MISMATCH"),
            ("workspace_id", "WORKSPACE_MISMATCH"),
            ("executor_id", "EXECUTOR_MISMATCH"),
            ("plan.media_type", "MALFORMED"),
            ("report.media_type", "MALFORMED"),
            ("approvals.media_type", "MALFORMED"),
            ("approvals.key_id", "APPROVER_UNKNOWN"),
            ("approvals.scheme", "SIGNATURE_INVALID"),
            ("approvals.signature", "SIGNATURE_INVALID"),
            ("approvals.extra", "SIGNATURE_INVALID"),
        ],
    )
    def test_half_a_megabyte_of_control_characters(self, target: ServedTarget, place: str, reason: str) -> None:
        """Wherever they stand, the refusal arrives whole, signed, short, and fit to be shown."""
        request = message(target.good())
        document, _, field = place.rpartition(".")
        at: Any = request
        if document:
            at = request.approvals[0] if document == "approvals" else getattr(request, document)
        if field not in {"request_id", "mission_id", "intent_id", "workspace_id", "executor_id", "media_type"}:
            at = at.signatures[0]
        setattr(at, field, NASTY.encode() if field in {"signature", "extra"} else NASTY)
        before = target.held()
        answer = told(failing(target.connection, EXECUTE, request.SerializeToString()))
        check(target, answer, reason)
        assert answer.sealed is not None
        assert len(answer.sealed.body) < 4096
        assert target.held() == before

    @pytest.mark.parametrize(
        ("field", "reason"),
        [
            ("approver", "SIGNATURE_INVALID"),
            ("approval_id", "MALFORMED"),
            ("plan_id", "PLAN_MISMATCH"),
            ("plan_digest", "PLAN_MISMATCH"),
            ("report_id", "NOT_APPROVED"),
            ("mission_id", "MALFORMED"),
            ("workspace_id", "WORKSPACE_MISMATCH"),
            ("audit_checkpoint", "AUDIT_FORKED"),
        ],
    )
    def test_an_approver_who_signs_control_characters(self, target: ServedTarget, field: str, reason: str) -> None:
        """Nor does what an approver's own client has signed get into a refusal's text as it is."""
        refused(target, Hostile(target).approved(**{field: NASTY[:1000]}), reason)

    def test_a_message_over_the_limit(self, target: ServedTarget) -> None:
        """It is not taken in: the transport refuses it by its length, and the executor serves on."""
        before = target.held()
        request = message(target.good())
        request.plan.body = bytes(66 * MIB)
        assert code(target.connection, EXECUTE, request.SerializeToString()) is Code.RESOURCE_EXHAUSTED
        assert target.held() == before
        still_good(target)

    @pytest.mark.parametrize("port", ["address", "revocations"])
    def test_oversized_metadata(self, target: ServedTarget, port: str) -> None:
        """Headers beyond what is taken are refused by the transport, whatever they say, on both listeners."""
        before = target.held()
        name, method = ("carol", REVOKE) if port == "revocations" else ("orchestrator", EXECUTE)
        metadata = tuple((f"x-{number}", "x" * 4096) for number in range(64))
        with target.channel(name, port=port) as channel:
            assert code(channel, method, metadata=metadata) is Code.RESOURCE_EXHAUSTED
        assert target.held() == before
        still_good(target)

    def test_metadata_that_claims_to_be_somebody(self, target: ServedTarget) -> None:
        """Who calls is what the certificate says, and nothing that a caller can write."""
        claims = ("peer_spiffe_id", "x-forwarded-client-cert", "x-spiffe-id", "authorization")
        with target.channel("alice") as channel:
            answer = failure(channel, GET_EXECUTOR, metadata=tuple((name, ORCHESTRATOR) for name in claims))
        assert answer.reason == "PEER_NOT_ALLOWED"


class TestFlood:
    def test_two_hundred_at_once_and_one_good_mission(self, target: ServedTarget) -> None:
        """Every one of them is refused with a signed document, and the mission beside them goes through meanwhile."""
        good, other = target.good(), target.good(mission="m-2", path="flood.txt")
        attacks = [
            target.again(other, approvals=()),
            target.again(other, report=None),
            target.again(other, plan=good.plan),
        ]
        requests = [message(target.again(attacks[number % 3])) for number in range(FLOOD)]
        calls = [target.stub.Execute(request, timeout=SECONDS) for request in requests]
        started = time.monotonic()
        target.run(good)
        took = time.monotonic() - started
        reasons = []
        for call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            answer = told(caught.value)
            check(target, answer, answer.reason)
            reasons.append(answer.reason)
        assert {reason: reasons.count(reason) for reason in reasons} == {
            "NOT_APPROVED": 67,
            "REPORT_MISSING": 67,
            "PLAN_MISMATCH": 66,
        }
        assert took < SECONDS / 3
        assert (target.site / "hello.txt").exists()
        assert not (target.site / "flood.txt").exists()
        assert len(target.refusals_of(other.named.mission_id)) == FLOOD
        target.run(target.again(other))

    def test_of_forty_deliveries_at_once_one_is_executed(self, target: ServedTarget) -> None:
        """However many connections bring the same approvals, the mission runs once."""
        good = target.good()
        requests = [message(target.again(good)) for _ in range(40)]
        channels = [target.channel("orchestrator") for _ in range(4)]
        stubs = [executor_pb2_grpc.ExecutorServiceStub(channel) for channel in channels]
        calls = [stubs[number % 4].Execute(one, timeout=SECONDS) for number, one in enumerate(requests)]
        rows, ended = ledger_rows(target.state), []
        for call in calls:
            try:
                ended.append([*call][-1].execution.ended)
            except grpc.RpcError as error:
                ended.append(told(error).reason)
        for channel in channels:
            channel.close()
        assert ended.count(True) == 1
        assert set(ended) <= {True, *IN_THE_LEDGER}
        assert ledger_rows(target.state) <= rows + 1


class TestListener:
    @pytest.mark.parametrize("name", ["carol", "orchestrator"])
    def test_it_can_do_nothing_else(self, target: ServedTarget, name: str) -> None:
        """No method of the executor's service, nor any other service, answers there, whoever asks."""
        before = target.held()
        data = message(target.good()).SerializeToString()
        with target.channel(name, port="revocations") as channel:
            for method in (*METHODS, "/grpc.health.v1.Health/Check", "/gonogo.v1.RevocationService/Approve"):
                assert code(channel, method, data) is Code.UNIMPLEMENTED, method
        assert target.held() == before

    def test_the_other_listener_revokes_nothing(self, target: ServedTarget) -> None:
        """Nor is a revocation taken where the orchestrator calls."""
        revocation = target.revocation(by=target.bob)
        data = executor_pb2.RevokeRequest(revocation=sealed_to_proto(revocation)).SerializeToString()
        assert code(target.connection, REVOKE, data) is Code.UNIMPLEMENTED

    def test_the_orchestrators_identity_revokes_nothing(self, target: ServedTarget) -> None:
        """Although the document is good: what it would stop goes through."""
        request, revocation = target.good(), target.revocation(by=target.bob)
        data = executor_pb2.RevokeRequest(revocation=sealed_to_proto(revocation)).SerializeToString()
        with target.channel("orchestrator", port="revocations") as channel:
            answer = failure(channel, REVOKE, data)
        assert (answer.code, answer.reason) == (Code.PERMISSION_DENIED, "PEER_NOT_ALLOWED")
        target.run(request)

    @pytest.mark.parametrize("signer", ["its own", "bot", "executor"])
    def test_a_revocation_that_no_approver_signed(self, target: ServedTarget, signer: str) -> None:
        """A client's certificate opens the door; only an approver's signature takes anything back."""
        request = target.good()
        hostile = Hostile(target)
        who = {"its own": hostile.own_key, "bot": target.bot, "executor": hostile.own_key}[signer]
        revocation = target.revocation(by=who)
        if signer == "executor":
            good = target.good(mission="m-2", path="b")
            assert good.report is not None
            revocation = SealedBytes(
                media_type=sealing.REVOCATION, body=revocation.body, signatures=good.report.signatures
            )
        with pytest.raises(grpc.RpcError) as caught:
            target.core.revoke(revocation)
        assert told(caught.value).reason == "APPROVER_UNKNOWN"
        target.run(target.again(request))

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            pytest.param(evidence_pb2.REVOCATION_KIND_WITHDRAW, "APPROVAL_REVOKED", id="withdrawn"),
            pytest.param(evidence_pb2.REVOCATION_KIND_DENY, "NOT_APPROVED", id="denied"),
        ],
    )
    def test_withheld_revoked_and_delivered(
        self, target: ServedTarget, kind: evidence_pb2.RevocationKind.ValueType, reason: str
    ) -> None:
        """What was taken back while it was held back is worth nothing, now, later, and after a restart."""
        request = target.good()
        answer = target.core.revoke(target.revocation(by=target.bob, kind=kind))
        assert (answer.in_time, answer.stopping) == (True, False)
        refused(target, request, reason)
        report = target.dry_run(request.plan, target.next_request())
        fresh = target.request(request.plan, report, target.approve(request.plan, report, by=target.bob))
        refused(target, fresh, reason)
        target.restart()
        refused(target, target.again(request), reason)
        recorded = [entry for entry in target.audit(request.named.mission_id) if entry["type"] == "revoked"]
        assert len(recorded) == 1
