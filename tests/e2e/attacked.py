"""The target of tests/attacks as a process of its own: whoever attacks it does so over gRPC.

`ServedTarget` is `Target` with another executor behind it. The honest people are the same and sign in this process;
what the orchestrator does goes over mutual TLS, with the orchestrator's own certificate. So the simulator of the
hostile orchestrator attacks both without knowing which one it has.

One process serves many attacks: `begin` gives each of them missions and a folder of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from executor.adapters.wire import sealed_from_proto, sealed_to_proto
from executor.domain.sealed import SealedBytes
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.digests import digest
from gonogo.merkle import leaf_hash, verify_inclusion
from gonogo.notes import EXECUTOR, log_origin, open_note
from gonogo.v1 import evidence_pb2, executor_pb2, executor_pb2_grpc, plan_pb2
from tests.attacks.target import Target, Wall
from tests.contract.executor_server import ORCHESTRATOR, Authority
from tests.contract.test_executor_grpc import message
from tests.e2e.wire_house import Refused, ledger_rows, refused_from
from tests.unit.executor.house import EXECUTOR_ID, WORKSPACE_ID

ROOT = Path(__file__).parents[2]
CLOCKED = ROOT / "tests" / "e2e" / "clocked_executor.py"
CLIENT = "spiffe://gonogo.local/client/"
PEOPLE = ("alice", "bob", "carol")
SECONDS = 30.0
SERVICE = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"]
METHODS = [f"/{SERVICE.full_name}/{one.name}" for one in SERVICE.methods]
EXECUTE = "/gonogo.v1.ExecutorService/Execute"
OPTIONS = (
    ("grpc.ssl_target_name_override", "executor"),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)

Code = grpc.StatusCode
MALFORMED = {"MALFORMED", "TOO_LARGE", "REQUEST_REUSED"}
IN_THE_LEDGER = {"ALREADY_CLAIMED", "ALREADY_EXECUTED"}
NO_GATE = {"CLOCK_BEHIND", "STATE_FORBIDS"}

Metadata = tuple[tuple[str, str | bytes], ...]
Entry = dict[str, Any]
Snapshot = dict[str, tuple[int, int, int, bytes]]


class ClockFile(Wall):
    """A clock that somebody sets for another process, by a file."""

    def __init__(self, file: Path) -> None:
        object.__setattr__(self, "file", file)
        super().__init__()

    def __setattr__(self, name: str, value: timedelta) -> None:
        super().__setattr__(name, value)
        draft = self.file.with_suffix(".new")  # type: ignore[attr-defined]  # set in __init__, around this method
        draft.write_text(str(value.total_seconds()))
        draft.replace(self.file)  # type: ignore[attr-defined]  # as above


class Issuer(Authority):
    """The authority, which also issues what nobody should take, and is played by those who are none."""

    def issue_expired(self, name: str, *uris: str) -> None:
        """Issue a leaf whose time was over an hour ago."""
        builder = self._builder
        past = datetime.now(UTC) - timedelta(days=2), datetime.now(UTC) - timedelta(hours=1)

        def expired(subject: x509.Name, key: PublicKey) -> x509.CertificateBuilder:
            made = builder(subject, key)
            made._not_valid_before, made._not_valid_after = (time.replace(tzinfo=None) for time in past)
            return made

        self._builder = expired  # type: ignore[method-assign]  # for this one
        try:
            self.issue(name, *uris)
        finally:
            self._builder = builder  # type: ignore[method-assign]  # as it was

    def issue_as(self, leaf: str, name: str, *uris: str) -> None:
        """Have the holder of a leaf play the authority: issue with the leaf's key, and send the leaf along."""
        key, own = self._key, self._name
        chain = (self.directory / f"{leaf}.pem").read_bytes()
        self._key = load_pem_private_key((self.directory / f"{leaf}.key").read_bytes(), None)  # type: ignore[assignment]  # of that kind
        self._name = x509.load_pem_x509_certificate(chain).subject
        try:
            self.issue(name, *uris)
        finally:
            self._key, self._name = key, own
        file = self.directory / f"{name}.pem"
        file.write_bytes(file.read_bytes() + chain)


@dataclass(frozen=True, slots=True)
class Listener:
    """What the simulator takes for the executor's core: it hands revocations in as people do, at the listener."""

    target: "ServedTarget"

    def revoke(self, revocation: SealedBytes) -> executor_pb2.RevokeResponse:
        """Hand a revocation in with carol's certificate; the signature on it may be anybody's."""
        with self.target.channel("carol", port="revocations") as channel:
            stub = executor_pb2_grpc.RevocationServiceStub(channel)
            return stub.Revoke(executor_pb2.RevokeRequest(revocation=sealed_to_proto(revocation)), timeout=SECONDS)


class ServedTarget(Target):
    """The executor's process with its files, its people, and a channel with the orchestrator's certificate."""

    def __init__(self, root: Path, *, clocked: bool = False) -> None:
        self.program = [str(CLOCKED), str(root / "clock")] if clocked else ["-m", "executor"]
        self.log = root / "executor.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.version, self.cases, self.mark = 1, 0, "0"
        self.authority = Issuer(root / "state" / "tls")
        self.authority.issue("executor", "spiffe://gonogo.local/executor")
        self.authority.issue("orchestrator", ORCHESTRATOR)
        for name in PEOPLE:
            self.authority.issue(name, CLIENT + name)
        self.ready_file = root / "ready.json"
        if clocked:
            ClockFile(root / "clock")
        super().__init__(root)
        self.wall = ClockFile(root / "clock") if clocked else Wall()
        self.roots = (self.site, self.other)
        self.begin()

    # The process.

    def open(self) -> None:
        """Start the executor and connect to it."""
        self.launch()
        self.wait()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process."""
        self.ready_file.unlink(missing_ok=True)
        options = ["--state", str(self.state), "--ready-file", str(self.ready_file), "--max-ladder-level", "L1"]
        for name, path in self.settings.workspaces.items():
            options += ["--workspace", f"{name}={path}"]
        options += ["--listen", "127.0.0.1:0", "--revocation-listen", "127.0.0.1:0", "--die-with-parent"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GONOGO_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, *options],
                cwd=ROOT,
                env={**environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
                stderr=log,
            )
        return self.process

    def wait(self) -> None:
        """Wait until it answers, and connect."""
        assert self.process is not None
        deadline = time.monotonic() + SECONDS
        while not self.ready_file.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.addresses = json.loads(self.ready_file.read_text())
        self.connect()
        self.core = Listener(self)  # type: ignore[assignment]  # all that the simulator asks of a core

    def connect(self) -> None:
        """Connect with the orchestrator's certificate."""
        self.connection = self.channel("orchestrator")
        self.stub = executor_pb2_grpc.ExecutorServiceStub(self.connection)

    def close(self) -> None:
        """End it as a supervisor does."""
        self.end(kill=False)

    def end(self, *, kill: bool) -> int:
        """End it, with a warning or without, and return its exit code."""
        assert self.process is not None
        self.connection.close()
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        return self.process.wait(SECONDS)

    def start_fails(self) -> Entry:
        """Start it where it must not start; return the line that says why."""
        process = self.launch()
        assert process.wait(SECONDS) == 1
        assert not self.ready_file.exists()
        line: Entry = json.loads(self.log.read_text().splitlines()[-1])
        return line

    def channel(
        self, name: str | None, *, port: str = "address", authority: Authority | None = None, trusts: bool = True
    ) -> grpc.Channel:
        """Open a channel with somebody's certificate, or with none.

        Args:
            name: whose; None for no certificate at all.
            port: which of the executor's listeners.
            authority: who issued it, where that is another one.
            trusts: whether the caller checks who the executor is.
        """
        issuer = authority or self.authority
        trusted = self.authority if trusts else issuer
        key, chain = (
            ((issuer.directory / f"{name}.{end}").read_bytes() for end in ("key", "pem")) if name else (None,) * 2
        )
        credentials = grpc.ssl_channel_credentials((trusted.directory / "ca.pem").read_bytes(), key, chain)
        return grpc.secure_channel(self.addresses[port], credentials, OPTIONS)

    # One attack after the other.

    def begin(self) -> None:
        """Give the next attack missions of its own and a folder of its own in each workspace."""
        self.cases += 1
        self.mark = str(self.cases)
        self.site, self.other = (root / self.mark for root in self.roots)
        for folder in (self.site, self.other):
            folder.mkdir()

    def plan(
        self,
        *,
        mission: str = "m-1",
        path: str = "hello.txt",
        content: str = "hello\n",
        workspace: str = WORKSPACE_ID,
        proposer: str = "alice",
    ) -> plan_pb2.Plan:
        """A plan of this attack's."""
        return super().plan(
            mission=f"{mission}.{self.mark}",
            path=f"{self.mark}/{path}",
            content=content,
            workspace=workspace,
            proposer=proposer,
        )

    def revocation(self, *, mission: str = "m-1", **more: Any) -> SealedBytes:
        """A revocation of a mission of this attack's."""
        return super().revocation(mission=f"{mission}.{self.mark}", **more)

    def next_request(self) -> str:
        """A new request id."""
        return f"{super().next_request()}.{self.mark}"

    def trust_file(self, version: int, *, more: str = "", without: str = "") -> str:
        """The text of the operator's file; versions are counted from the one that this attack began with."""
        return super().trust_file(self.version + version - 1, more=more, without=without)

    def mend(self) -> None:
        """Have a newer trust file that says what the first one said, and start with it."""
        self.version += 2
        self.write_trust(self.trust_file(1))
        self.restart()

    # What the orchestrator does.

    def dry_run(self, plan: SealedBytes, request_id: str = "") -> SealedBytes:
        """Have the executor dry run a plan."""
        request = executor_pb2.DryRunRequest(request_id=request_id or self.next_request(), plan=sealed_to_proto(plan))
        *_, last = self.stub.DryRun(request, timeout=SECONDS)
        return sealed_from_proto(last.report)

    def dry_run_refused(self, plan: SealedBytes) -> Refused:
        """Ask for a dry run that must be refused."""
        with pytest.raises(grpc.RpcError) as caught:
            self.dry_run(plan)
        return told(caught.value)

    def executed(self, request: executor_pb2.ExecuteRequest) -> evidence_pb2.Receipt:
        """Have a request executed to its end; return the receipt."""
        *_, last = self.stub.Execute(request, timeout=SECONDS)
        return sealing.open_sealed(last.receipt.body, evidence_pb2.Receipt)

    def run(self, request: ExecuteInput) -> None:
        """Have it executed, which it is."""
        assert self.executed(message(request)).execution_status == evidence_pb2.OUTCOME_SUCCESS

    def asked(self, request: ExecuteInput) -> Refused:
        """Send a request that must be refused, and return the whole answer."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self.stub.Execute(message(request), timeout=SECONDS))
        return told(caught.value)

    def refused(self, request: ExecuteInput) -> SealedBytes:
        """Send a request that must be refused, and return the executor's signed refusal."""
        refused = self.asked(request)
        refused.refusal(self.executor_key.public)
        assert refused.sealed is not None
        return sealed_from_proto(refused.sealed)

    def sent_raw(self, data: bytes) -> Sequence[executor_pb2.ExecuteResponse]:
        """Send bytes that no client of ours would write."""
        answer = executor_pb2.ExecuteResponse.FromString
        call = self.connection.unary_stream(EXECUTE, request_serializer=bytes, response_deserializer=answer)
        return list(call(data, timeout=SECONDS))

    # What is left of it.

    def tree(self) -> Snapshot:  # type: ignore[override]  # with folders, bits and times, and compared like the other
        """Both workspaces, byte for byte, inode for inode."""
        found: Snapshot = {}
        for path in sorted(path for root in self.roots for path in root.rglob("*")):
            info = path.lstat()
            data = b"" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(self.root))] = (info.st_ino, info.st_mode, info.st_mtime_ns, data)
        return found

    def held(self) -> tuple[Snapshot, int]:
        """The workspaces, and how many executions the ledger holds."""
        return self.tree(), ledger_rows(self.state)

    def audit(self, mission_id: str) -> list[Entry]:
        """The entries of the audit log about a mission, each proven under the executor's signed checkpoint."""
        request = executor_pb2.GetMissionLogRequest(mission_id=mission_id)
        extract = self.stub.GetMissionLog(request, timeout=SECONDS).log
        signed = open_note(extract.checkpoint, self.executor_key.public, log_origin(EXECUTOR, EXECUTOR_ID))
        for entry in extract.entries:
            hashed = leaf_hash(entry.leaf)
            assert verify_inclusion(hashed, entry.index, signed.size, list(entry.path), signed.root)
        return [json.loads(entry.leaf) for entry in extract.entries]

    def refusals_of(self, mission_id: str) -> list[tuple[str, str]]:
        """The refusals in the audit log about a mission: reason and digest of the signed document."""
        entries = self.audit(mission_id)
        return [(entry["reason"], entry["refusal_digest"]) for entry in entries if entry["type"] == "refused"]


def told(error: grpc.RpcError) -> Refused:
    """Take an error status apart."""
    return refused_from(cast("grpc.aio.AioRpcError", error))  # the two have the same face


def digest_of(refused: Refused) -> str:
    """The digest of the signed refusal in an answer."""
    assert refused.sealed is not None
    return digest(refused.sealed.body)


def refused(target: ServedTarget, request: ExecuteInput, reason: str) -> Refused:
    """Send a request, and see that the refusal is whole and that nothing else has happened."""
    before = target.held()
    answer = target.asked(request)
    assert target.held() == before
    check(target, answer, reason)
    assert target.refusals_of(request.named.mission_id)[-1] == (reason, digest_of(answer))
    return answer


def check(target: ServedTarget, answer: Refused, reason: str) -> None:
    """Compare an answer with what the design says of it: code, details, and the signed document."""
    assert (answer.reason, answer.info.domain) == (reason, "gonogo")
    assert answer.code is code_of(reason)
    assert answer.remedy
    assert answer.violations == (() if reason in MALFORMED | NO_GATE else (reason,))
    assert answer.fields == ((reason,) if reason in MALFORMED else ())
    refusal = answer.refusal(target.executor_key.public)
    assert (refusal.abort_reason, refusal.executor_id) == (reason, EXECUTOR_ID)
    for text in (answer.message, answer.remedy, refusal.message, refusal.remedy):
        assert text.isprintable(), "whoever shows a refusal shows no control characters of somebody else's"
        assert text


def code_of(reason: str) -> grpc.StatusCode:
    """The status code that the design gives to a refusal."""
    if reason in MALFORMED:
        return Code.INVALID_ARGUMENT
    return Code.ALREADY_EXISTS if reason in IN_THE_LEDGER else Code.FAILED_PRECONDITION


def failing(channel: grpc.Channel, method: str, data: bytes = b"", *, metadata: Metadata = ()) -> grpc.RpcError:
    """Call a method of either kind with some bytes; it must fail."""
    call = channel.unary_stream(method, request_serializer=bytes, response_deserializer=bytes)
    answers = call(data, timeout=SECONDS, metadata=metadata)
    with pytest.raises(grpc.RpcError) as caught:
        list(answers)
    return caught.value


def failure(channel: grpc.Channel, method: str, data: bytes = b"", *, metadata: Metadata = ()) -> Refused:
    """Call a method, which the executor refuses; return how."""
    return told(failing(channel, method, data, metadata=metadata))


def code(channel: grpc.Channel, method: str, data: bytes = b"", *, metadata: Metadata = ()) -> grpc.StatusCode:
    """Call a method, which fails before the executor is asked; return the code."""
    found: grpc.StatusCode = failing(channel, method, data, metadata=metadata).code()
    return found
