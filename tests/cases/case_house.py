"""A whole executor as its start-up puts it together, without its gRPC face, and everybody around it.

What is real: the state directory, keys, trust file, gates, ledger, dry run, sandbox, commit, recovery. The orchestrator
(who carries documents) and the approver (who signs) are played by the house.
"""

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from executor import bootstrap
from executor.domain.errors import ExecutorError
from executor.domain.gates import NamedIds
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.requests import ExecuteInput
from executor.runner.run import Recorder
from executor.runner.stored_run import AnyRun
from executor.settings import read_settings
from gonogo import sealing
from gonogo.digests import digest
from gonogo.safe_text import path_bytes
from gonogo.signatures import SSHSIG, SigningKey, load_signing_key, new_signing_key
from gonogo.v1 import evidence_pb2, plan_pb2

EXECUTOR_ID = "executor-cases"
SITE = "site"
SUCCESS = evidence_pb2.REPORT_STATUS_SUCCESS
BLOCKED = evidence_pb2.REPORT_STATUS_BLOCKED
UNSAFE = evidence_pb2.REPORT_STATUS_UNSAFE
FAILED = evidence_pb2.REPORT_STATUS_FAILED
BLOCK = 1 << 16

Step = plan_pb2.Step


def command(*argv: str, cwd: str = "", env: Mapping[str, str] | None = None) -> Step:
    return Step(run_command=plan_pb2.RunCommand(argv=argv, cwd=cwd, env=env or {}))


def shell(script: str, cwd: str = "", env: Mapping[str, str] | None = None) -> Step:
    return command("sh", "-c", script, cwd=cwd, env=env)


def python(script: str, *arguments: str) -> Step:
    return command("python3", "-IS", "-c", script, *arguments)


def checked(script: str) -> Step:
    expect = plan_pb2.TEST_EXPECTATION_PASS
    return Step(run_tests=plan_pb2.RunTests(argv=("sh", "-c", script), expect=expect), stage=plan_pb2.STAGE_TEST)


def created(path: str, content: str = "new\n", mode: str = "") -> Step:
    return Step(create_file=plan_pb2.CreateFile(path=path, content=content, mode=mode))


def written(path: str, content: str = "new\n", mode: str = "") -> Step:
    return Step(write_file=plan_pb2.WriteFile(path=path, content=content, mode=mode))


def appended(path: str, content: str = "more\n") -> Step:
    return Step(append_text=plan_pb2.AppendText(path=path, content=content))


def made(path: str) -> Step:
    return Step(create_directory=plan_pb2.CreateDirectory(path=path))


def moved(path: str, to: str) -> Step:
    return Step(move_path=plan_pb2.MovePath(path=path, to=to))


def deleted(path: str, *, recursive: bool = True) -> Step:
    return Step(delete_path=plan_pb2.DeletePath(path=path, recursive=recursive))


def moded(path: str, mode: str) -> Step:
    return Step(set_mode=plan_pb2.SetMode(path=path, mode=mode))


def read(path: str) -> Step:
    return Step(read_file=plan_pb2.ReadFile(path=path))


def listed(path: str) -> Step:
    return Step(list_directory=plan_pb2.ListDirectory(path=path))


def searched(pattern: str, path: str = ".") -> Step:
    return Step(search_files=plan_pb2.SearchFiles(pattern=pattern, path=path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A plan and what its dry run found."""

    plan: SealedBytes
    sealed: SealedBytes
    report: evidence_pb2.Report

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Path and kind of every change of every step, in order."""
        return [
            (os.fsdecode(path_bytes(change.path, change.raw_path)), kind_of(change))
            for step in self.report.steps
            for change in step.changes
        ]

    @property
    def reasons(self) -> list[str]:
        return [problem.reason for problem in self.report.problems]

    @property
    def complaint(self) -> str:
        """All that the report says about its problems."""
        return " ".join(f"{one.path} {one.message} {one.remedy}" for one in self.report.problems)

    @property
    def facts(self) -> dict[tuple[str, str], int]:
        return {(fact.kind, fact.path): fact.level for fact in self.report.risk.facts}

    def said(self, number: int = -1) -> str:
        """What a command printed."""
        run = self.report.steps[number].command
        return run.stdout.head + run.stderr.head


def kind_of(change: evidence_pb2.Change) -> str:
    return evidence_pb2.ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_").lower()


class CaseHouse:
    """One executor on one state directory, with the workspace `site` beside it."""

    def __init__(
        self,
        folder: Path,
        *,
        hidden: Iterable[str] = (),
        volatile: Iterable[str] = ("**/__pycache__/**",),
        staging: Path | None = None,
        site: Path | None = None,
        state: Path | None = None,
        policy: str = "",
        with_tools: bool = True,
        more: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.site = site or folder / SITE
        self.state = state or folder / "state"
        self.outside = folder / "outside"
        self.tools = folder / "tools"
        for place in (self.site, self.outside, self.tools, self.state / "keys"):
            place.mkdir(parents=True, exist_ok=True)
        self.owner = self._key("owner")
        self._key("executor")
        self._write_trust(hidden, volatile, policy)
        places = [f"--workspace={SITE}={self.site}", *([f"--staging={SITE}={staging}"] if staging else ())]
        tools = (sys.base_prefix, self.tools) if with_tools else ()
        options = [f"--state={self.state}", *places, *(f"--tools={tool}" for tool in tools), *more]
        self.settings = read_settings(options, {})
        self._number = 0
        self.open()

    def open(self) -> None:
        """Start the executor on whatever the state directory holds, recovery included."""
        self._closing = ExitStack()
        try:
            self.core = bootstrap.build_core(self.settings, self._closing)
        except BaseException:
            self._closing.close()
            raise

    def close(self) -> None:
        self._closing.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def plan(
        self,
        *steps: Step,
        mission: str = "",
        seconds: int = 20,
        on_failure: "plan_pb2.FailurePolicy.ValueType" = plan_pb2.FAILURE_POLICY_ROLL_BACK,
        scope: plan_pb2.Scope | None = None,
        **changes: Any,
    ) -> plan_pb2.Plan:
        """A plan of some steps, which get the ids s1, s2 and so on."""
        self._number += 1
        mission = mission or f"m-{os.getpid()}-{self._number}"
        numbered = []
        for number, step in enumerate(steps, 1):
            one = Step(step_id=f"s{number}", stage=plan_pb2.STAGE_EDIT)
            one.MergeFrom(step)
            numbered.append(one)
        bounds = plan_pb2.Scope(network=plan_pb2.NETWORK_ACCESS_NONE, max_pages=1, max_duration_seconds=seconds)
        bounds.MergeFrom(scope or plan_pb2.Scope())
        values: dict[str, Any] = {
            "plan_id": f"p-{mission}",
            "mission_id": mission,
            "intent_id": f"i-{mission}",
            "objective": "try it",
            "workspace_id": SITE,
            "executor_id": EXECUTOR_ID,
            "proposer": "owner",
            "created_at": stamp(datetime.now(UTC)),
            "scope": bounds,
            "failure_policy": on_failure,
            "steps": numbered,
            **changes,
        }
        return plan_pb2.Plan(**values)

    def dry_run(self, plan: plan_pb2.Plan, attached: Callable[[Recorder], None] = lambda _: None) -> Tried:
        """Have the executor dry-run a plan."""
        sealed = SealedBytes(media_type=sealing.PLAN, body=sealing.seal(plan), signatures=())
        document = self.core.dry_run(self._request_id(), sealed, attached)
        return Tried(plan=sealed, sealed=document, report=sealing.open_sealed(document.body, evidence_pb2.Report))

    def tried(self, *steps: Step, **more: Any) -> Tried:
        """Dry-run some steps."""
        return self.dry_run(self.plan(*steps, **more))

    def worked(self, *steps: Step, **more: Any) -> Tried:
        """Dry-run some steps, which must work."""
        tried = self.tried(*steps, **more)
        assert tried.report.status == SUCCESS, tried.complaint
        return tried

    def why_not(self, *steps: Step, **more: Any) -> str:
        """The reason that keeps steps from a successful dry run, refused or reported; empty where nothing does."""
        try:
            found = self.tried(*steps, **more)
        except ExecutorError as error:
            fault = error.fault
            assert fault.remedy
            return fault.reason
        if found.report.status == SUCCESS:
            return ""
        assert all(one.message and one.remedy for one in found.report.problems)
        return found.reasons[0]

    def approval(self, tried: Tried, **changes: Any) -> evidence_pb2.Approval:
        """What the owner's honest client would sign, with some of it changed."""
        told, now = tried.report, datetime.now(UTC)
        values: dict[str, Any] = {
            "approval_id": f"a-{digest(tried.sealed.body)[7:27]}",
            "mission_id": told.mission_id,
            "intent_id": told.intent_id,
            "plan_id": told.plan_id,
            "plan_digest": tried.plan.digest,
            "report_id": told.report_id,
            "report_digest": tried.sealed.digest,
            "executor_id": told.executor_id,
            "workspace_id": told.workspace_id,
            "approver": "owner",
            "decision": evidence_pb2.DECISION_APPROVE,
            "approved_at": stamp(now),
            "not_before": stamp(now - timedelta(seconds=60)),
            "expires_at": stamp(now + timedelta(hours=1)),
            "nonce": f"n-{digest(tried.sealed.body)[7:27]}",
            "policy_digest": told.policy_digest,
            **changes,
        }
        return evidence_pb2.Approval(**values)

    def signed(self, approval: evidence_pb2.Approval) -> SealedBytes:
        body = sealing.seal(approval)
        raw = self.owner.sign(SSHSIG, sealing.APPROVAL, body)
        signature = Signature(key_id=self.owner.public.key_id, scheme=SSHSIG, signature=raw)
        return SealedBytes(media_type=sealing.APPROVAL, body=body, signatures=(signature,))

    def approved(self, tried: Tried) -> ExecuteInput:
        """The honest request to execute what was tried."""
        return self.request(tried.plan, tried.sealed, self.signed(self.approval(tried)))

    def request(self, plan: SealedBytes, report: SealedBytes, *approvals: SealedBytes) -> ExecuteInput:
        told = sealing.open_sealed(plan.body, plan_pb2.Plan)
        named = NamedIds(
            mission_id=told.mission_id,
            intent_id=told.intent_id,
            workspace_id=told.workspace_id,
            executor_id=told.executor_id,
        )
        return ExecuteInput(request_id=self._request_id(), plan=plan, report=report, approvals=approvals, named=named)

    def execute(
        self, request: ExecuteInput | Tried, attached: Callable[[AnyRun], None] = lambda _: None
    ) -> evidence_pb2.Receipt:
        """Execute to the end; what was only tried is approved first.

        Raises:
            RefusedError: the gates let nothing happen.
        """
        asked = self.approved(request) if isinstance(request, Tried) else request
        sealed = self.core.execute(asked, attached).progress(0).receipt
        assert sealed is not None
        return sealing.open_sealed(sealed.body, evidence_pb2.Receipt)

    def receipt(self, mission: str) -> evidence_pb2.Receipt:
        return sealing.open_sealed(self.core.get_receipt(mission).body, evidence_pb2.Receipt)

    def mission(self, *steps: Step, **more: Any) -> evidence_pb2.Receipt:
        """Take some steps, which must all work, from plan to receipt."""
        receipt = self.execute(self.worked(*steps, **more))
        assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS, receipt.errors
        return receipt

    def _request_id(self) -> str:
        self._number += 1
        return f"q-{os.getpid()}-{self._number}-{datetime.now(UTC).timestamp()}"

    def _key(self, name: str) -> SigningKey:
        path = self.state / "keys" / name
        if not path.exists():
            path.write_bytes(new_signing_key().private_bytes())
        return load_signing_key(path.read_bytes())

    def _write_trust(self, hidden: Iterable[str], volatile: Iterable[str], policy: str) -> None:
        lines = [
            "version = 1",
            "expires = 2100-01-01T00:00:00Z",
            f'executor_id = "{EXECUTOR_ID}"',
            'orchestrators = ["spiffe://gonogo.local/orchestrator"]',
            "[policy]",
            "approvals_required = 1",
            'self_approval = "allowed"',
            f"hidden = {_toml(hidden)}",
            f"volatile = {_toml(volatile)}",
            policy,
            "[[persons]]",
            'id = "owner"',
            "[[persons.keys]]",
            'scheme = "sshsig"',
            f'public_key = "{self.owner.public.line}"',
        ]
        (self.state / "trust.toml").write_text("\n".join(lines) + "\n")


def _toml(texts: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"


@contextmanager
def case_house(folder: Path, **more: Any) -> Iterator[CaseHouse]:
    """Open a house in an empty folder."""
    house = CaseHouse(folder, **more)
    try:
        yield house
    finally:
        house.close()


def stamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def tree_of(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything a folder holds, itself included: all that a restore owes, byte and metadata exact."""
    found = {b".": _facts(os.fsencode(root))}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            path = folder + b"/" + name
            found[os.path.relpath(path, os.fsencode(root))] = _facts(path)
    return found


def names_in(folder: Path) -> list[str]:
    """The names in one folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def names_of(root: Path) -> set[bytes]:
    return set(tree_of(root)) - {b"."}


def _facts(path: bytes) -> tuple[object, ...]:
    info = os.lstat(path)
    content: object = ""
    if stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)  # noqa: PTH115 - bytes
    elif stat.S_ISREG(info.st_mode):
        content = _content(path, info.st_size)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, content, xattrs


def _content(path: bytes, size: int) -> str:
    """A digest of a file's bytes; holes and written zeros count alike, so that a terabyte of them costs nothing."""
    hasher, offset = hashlib.sha256(), 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while offset < size:
            try:
                offset = os.lseek(fd, offset, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                break
            block = os.pread(fd, BLOCK, offset)
            if block.strip(b"\0"):
                hasher.update(b"%d:" % offset + block)
            offset += BLOCK
    finally:
        os.close(fd)
    return hasher.hexdigest()
