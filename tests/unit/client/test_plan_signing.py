"""A proposer's signature: what the client makes sure of before it signs, and how the commands go about it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from itertools import count
from pathlib import Path

import pytest
from google.rpc import code_pb2

from client.__main__ import run_command
from client.api import GonogoClient
from client.approving import Terminal
from client.errors import EvidenceError, RemoteError
from client.initialise import initialise
from client.plan_signing import asked_plan, handed_plan, sign_plan
from client.planfile import parse
from client.signing import Signer, read_signing_key
from client.state import StateDirectory
from gonogo import sealing
from gonogo.signatures import SSHSIG, load_public_key, new_signing_key, verify
from gonogo.v1 import evidence_pb2, orchestrator_pb2, plan_pb2, sealed_pb2
from orchestrator.adapters import wire
from orchestrator.adapters.sealed_documents import SealedDocuments
from orchestrator.domain.plan import FailurePolicy, Plan, Scope
from orchestrator.domain.plan_rules import completed
from tests.unit.client.orchestrator_simulator import Simulator

Command = Callable[..., tuple[int, str, str]]

EVERY_KIND = """
objective: One step of every kind
workspace: site
steps:
  - read_file: {path: a.txt}
  - list_directory: {path: .}
  - search_files: {pattern: x, path: .}
  - create_file: {path: b.txt, content: ""}
  - create_directory: {path: c}
  - write_file: {path: d.bin, data: AAEC}
  - patch_file: {path: e.txt, patch: "--- a\\n"}
  - replace_text: {path: f.txt, old: a, new: b}
  - append_text: {path: g.txt, content: x}
  - move_path: {path: h.txt, to: i.txt}
  - delete_path: {path: j.txt}
  - set_mode: {path: k.txt, mode: "0755"}
  - run_command: {argv: [make, "-C", "ä b"], env: {A: "1", B: "2"}}
  - run_command: {argv: ["printf", "two\\nlines\\u2028"]}
    description: Fix what is broken
  - run_tests: {argv: [pytest], junit: out.xml}
  - undo_step: {mission_id: m-1, step_id: s1}
"""
WRITTEN_OUT = """
objective: Everything said
workspace: site
failure_policy: stop
scope:
  paths: ["src/**"]
  network: none
  max_pages: 3
  max_duration_seconds: 60
  max_bytes: 1000
  min_ladder_level: l3
steps:
  - step_id: one
    description: Test it
    stage: repair
    run_command: {argv: [make], cwd: src, success_codes: [0, 3]}
  - run_tests: {argv: [pytest], expect: any}
  - write_file: {path: src/LONG, content: "x", mode: "0600"}
""".replace("LONG", "/".join(["n" * 100] * 3))

LIVE = """
objective: One step of every kind that reaches outside
workspace: site
pause: {deadline_seconds: 600, default_action: stop}
scope:
  network: listed_domains
  domains: [example.org, "*.example.net"]
  max_pages: 2
steps:
  - fetch_url: {url: "https://example.org/a?b=c", extract_text: true}
  - fetch_url: {url: "http://www.example.net:8080/", head: true, max_bytes: 1000}
  - search_bodies: {query: "two words"}
  - http_request:
      method: POST
      url: https://example.org/orders
      headers: {Content-Type: application/json, Authorization: "secret://shop"}
      content: "{}"
      idempotency_header: Idempotency-Key
    needs_approval: true
    compensation:
      http_request: {method: DELETE, url: "https://example.org/orders/1"}
  - run_live: {argv: [deploy, --now], access: host, env: {TOKEN: "secret://deploy"}, keep_running: {port: 8080}}
    compensation: {description: Take it down, run_live: {argv: [undeploy, "two\\nlines"], access: host}}
  - call_tool: {server: mail, tool: send, arguments: {to: [a@example.org], urgent: true, after: null, size: 1.50}}
    stage: repair
  - call_tool: {server: mail, tool: drafts}
  - run_sql: {database: shop, statement: "UPDATE t SET a = %s\\nWHERE b = %s", parameters: [1, "1", null, x, {a: 1}]}
    compensation: {run_sql: {database: shop, statement: "UPDATE t SET a = 0"}}
"""


def sealed(draft: plan_pb2.PlanDraft, change: Callable[[plan_pb2.Plan], object] = bool) -> sealed_pb2.Sealed:
    """Seal a draft as the real orchestrator does; a change is made before."""
    full = completed(wire.draft_from_proto(draft), max_content_bytes=1 << 20)
    body = (
        SealedDocuments()
        .seal_plan(
            Plan(
                plan_id="p-1",
                mission_id="m-1",
                intent_id="i-1",
                message_id="",
                transcription_id="",
                cloned_from="",
                objective=full.objective,
                workspace_id=full.workspace,
                executor_id="executor-1",
                proposer="ann",
                created_at=datetime.now(UTC),
                scope=full.scope or Scope(),
                failure_policy=full.failure_policy or FailurePolicy.PAUSE,
                steps=full.steps,
                pause=full.pause,
            )
        )
        .body
    )
    plan = plan_pb2.Plan()
    plan.CopyFrom(sealing.open_sealed(body, plan_pb2.Plan))
    change(plan)
    return sealed_pb2.Sealed(media_type=sealing.PLAN, body=sealing.seal(plan))


def answer(plan: sealed_pb2.Sealed) -> orchestrator_pb2.ProposeMissionResponse:
    """Return the answer to a proposal: whatever plan it is, the mission is told to have it."""
    said = sealing.open_sealed(plan.body, plan_pb2.Plan)
    mission = orchestrator_pb2.Mission(
        mission_id=said.mission_id,
        plan_id=said.plan_id,
        intent_id=said.intent_id,
        workspace_id=said.workspace_id,
        executor_id=said.executor_id,
        plan_digest=sealing.sealed_digest(plan.body),
    )
    return orchestrator_pb2.ProposeMissionResponse(mission=mission, plan=plan)


@pytest.mark.parametrize("text", [EVERY_KIND, WRITTEN_OUT, LIVE], ids=["every kind", "written out", "live"])
def test_what_the_orchestrator_makes_of_a_draft_is_what_was_asked_for(text: str) -> None:
    """Every default that the real orchestrator fills in is one of the closed list, and nothing else is changed."""
    draft = parse(text.encode())
    found = asked_plan(draft, answer(sealed(draft)), "ann")
    assert [step.WhichOneof("action") for step in found.plan.steps] == [one.WhichOneof("action") for one in draft.steps]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda plan: setattr(plan.steps[3].create_file, "data", b""), "steps[4].create_file"),
        (
            lambda plan: plan.steps[5].write_file.CopyFrom(plan_pb2.WriteFile(path="d.bin", data=b"x")),
            "write_file.data",
        ),
        (lambda plan: setattr(plan.steps[9].move_path, "to", "/etc"), "steps[10].move_path.to"),
        (lambda plan: plan.steps[12].run_command.argv.append("-n"), "steps[13].run_command.argv"),
        (lambda plan: plan.steps[12].run_command.env.update(A="2"), "run_command.env"),
        (lambda plan: setattr(plan.steps[0], "description", "Nothing"), "steps[1].description"),
        (lambda plan: setattr(plan.steps[0], "step_id", "s9"), "steps[1].step_id"),
        (lambda plan: setattr(plan.steps[0], "stage", plan_pb2.STAGE_EDIT), "steps[1].stage"),
        (lambda plan: setattr(plan.steps[12], "stage", 0), "steps[13].stage"),
        (lambda plan: setattr(plan.steps[14].run_tests, "expect", plan_pb2.TEST_EXPECTATION_ANY), "run_tests.expect"),
        (lambda plan: plan.steps.add(step_id="x", delete_path=plan_pb2.DeletePath(path="a")), "steps"),
        (lambda plan: plan.steps.pop(), "steps"),
        (lambda plan: plan.steps.reverse(), "steps[1]"),
        (lambda plan: setattr(plan, "objective", "Another"), "objective"),
        (lambda plan: setattr(plan, "workspace_id", "other"), "workspace_id"),
        (lambda plan: setattr(plan, "failure_policy", plan_pb2.FAILURE_POLICY_CONTINUE), "failure_policy"),
        (lambda plan: setattr(plan.scope, "network", plan_pb2.NETWORK_ACCESS_LISTED_DOMAINS), "scope.network"),
        (lambda plan: plan.scope.domains.append("example.org"), "scope.domains"),
        (lambda plan: setattr(plan.scope, "max_duration_seconds", 31), "scope.max_duration_seconds"),
        (lambda plan: setattr(plan.scope, "max_bytes", "1"), "scope.max_bytes"),
        (lambda plan: setattr(plan.scope, "min_ladder_level", plan_pb2.LADDER_LEVEL_L0), "scope.min_ladder_level"),
        (lambda plan: setattr(plan, "cloned_from", "m-0"), "cloned_from"),
        (lambda plan: setattr(plan, "message_id", "msg-0"), "message_id"),
        (lambda plan: plan.ClearField("created_at"), "another form"),
        (lambda plan: plan.ClearField("scope"), "scope"),
    ],
    ids=count(),
)
def test_a_plan_that_was_not_asked_for_is_not_signed(change: Callable[[plan_pb2.Plan], object], where: str) -> None:
    """Whatever else the orchestrator seals, the client finds it and names the place."""
    draft = parse(EVERY_KIND.encode())
    with pytest.raises(EvidenceError) as caught:
        asked_plan(draft, answer(sealed(draft, change)), "ann")
    assert caught.value.reason == "PLAN_MISMATCH"
    assert where in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda plan: setattr(plan.pause, "deadline_seconds", 86_400), "pause.deadline_seconds"),
        (lambda plan: setattr(plan.pause, "default_action", plan_pb2.PAUSE_DEFAULT_ROLL_BACK), "pause.default_action"),
        (lambda plan: setattr(plan.pause, "step_approval_seconds", 1), "pause.step_approval_seconds"),
        (lambda plan: plan.ClearField("pause"), "pause"),
        (lambda plan: setattr(plan, "segment", 1), "segment"),
        (lambda plan: setattr(plan, "execution_id", "x-1"), "execution_id"),
        (lambda plan: setattr(plan, "journal_digest", "sha256:0"), "journal_digest"),
        (lambda plan: plan.scope.domains.append("example.com"), "scope.domains"),
        (lambda plan: setattr(plan.steps[0].fetch_url, "url", "https://example.org/"), "fetch_url.url"),
        (lambda plan: setattr(plan.steps[2].search_bodies, "limit", 21), "search_bodies.limit"),
        (lambda plan: setattr(plan.steps[3], "needs_approval", False), "steps[4].needs_approval"),
        (lambda plan: plan.steps[3].ClearField("compensation"), "steps[4].compensation"),
        (lambda plan: setattr(plan.steps[3].http_request.headers[1], "value", "x"), "headers[2].value"),
        (lambda plan: setattr(plan.steps[3].compensation.http_request, "method", "PUT"), "http_request.method"),
        (lambda plan: setattr(plan.steps[4].run_live, "access", plan_pb2.LIVE_ACCESS_NETWORK), "run_live.access"),
        (lambda plan: setattr(plan.steps[4].run_live.keep_running, "seconds", 11), "keep_running.seconds"),
        (lambda plan: setattr(plan.steps[5].call_tool, "arguments", "{}"), "call_tool.arguments"),
        (lambda plan: setattr(plan.steps[6].call_tool, "arguments", "[]"), "call_tool.arguments"),
        (lambda plan: plan.steps[7].run_sql.parameters.reverse(), "run_sql.parameters"),
        (lambda plan: setattr(plan.steps[7].compensation, "description", "x"), "compensation.description"),
        (lambda plan: setattr(plan.steps[7], "description", "run sql"), "steps[8].description"),
    ],
    ids=count(),
)
def test_a_live_step_that_was_not_asked_for_is_not_signed(
    change: Callable[[plan_pb2.Plan], object], where: str
) -> None:
    """What would be sent or run, what makes up for it and how long a pause waits is what the draft says."""
    draft = parse(LIVE.encode())
    with pytest.raises(EvidenceError) as caught:
        asked_plan(draft, answer(sealed(draft, change)), "ann")
    assert caught.value.reason == "PLAN_MISMATCH"
    assert where in caught.value.message


def test_values_of_a_plan_file_become_the_json_that_they_stand_for() -> None:
    """Numbers, true, false and null stay what they are without quotes; with quotes, and otherwise, a value is text."""
    steps = parse(LIVE.encode()).steps
    assert steps[5].call_tool.arguments == '{"to":["a@example.org"],"urgent":true,"after":null,"size":1.50}'
    assert steps[6].call_tool.arguments == ""
    assert list(steps[7].run_sql.parameters) == ["1", '"1"', "null", '"x"', '{"a":1}']


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("plan_digest", "PLAN_MISMATCH"),
        ("plan_id", "PLAN_MISMATCH"),
        ("mission_id", "MISSION_MISMATCH"),
        ("intent_id", "MISSION_MISMATCH"),
        ("workspace_id", "WORKSPACE_MISMATCH"),
        ("executor_id", "EXECUTOR_MISMATCH"),
    ],
)
def test_a_plan_of_another_mission_is_not_signed(field: str, reason: str) -> None:
    """The ids and the digest of the mission that was answered are those of the bytes."""
    draft = parse(EVERY_KIND.encode())
    proposed = answer(sealed(draft))
    setattr(proposed.mission, field, "other")
    with pytest.raises(EvidenceError) as caught:
        asked_plan(draft, proposed, "ann")
    assert caught.value.reason == reason


def test_only_its_own_proposer_signs_a_plan() -> None:
    """Somebody else's key proves nothing here; the remedy says how to propose as that one."""
    draft = parse(EVERY_KIND.encode())
    with pytest.raises(EvidenceError) as caught:
        asked_plan(draft, answer(sealed(draft)), "ann-agent")
    assert caught.value.reason == "SIGNATURE_INVALID"
    assert "gonogo caller add ann-agent --role propose" in caught.value.remedy


def test_what_is_signed_is_the_bytes_of_the_plan() -> None:
    """The signature verifies over the sealed bytes as they came, in the scheme that the key is listed with."""
    plan = sealed(parse(EVERY_KIND.encode()))
    handed = orchestrator_pb2.GetMissionResponse(mission=answer(plan).mission, plan=plan)
    key = new_signing_key()
    signature = sign_plan(handed_plan(handed, "ann"), Signer(key=key, person="ann", scheme="ed25519"))
    assert (signature.key_id, signature.scheme) == (key.public.key_id, "ed25519")
    verify(
        key.public, scheme="ed25519", signature=signature.signature, media_type=sealing.PLAN, body=plan.body, extra=b""
    )


# The command and the Python client, against a simulated orchestrator.


@pytest.fixture
def owner(shared_state: StateDirectory) -> Signer:
    return Signer(key=read_signing_key(shared_state.approver_key), person="owner")


@pytest.fixture
def draft(plan_file: Path) -> plan_pb2.PlanDraft:
    return parse(plan_file.read_bytes())


def signed_by(simulator: Simulator, state: StateDirectory) -> list[str]:
    """Return the missions whose plan the owner's key has signed."""
    key = load_public_key((state.keys / "approver.pub").read_text())
    found = []
    for mission_id, stored in simulator.missions.items():
        for one in stored.plan.signatures:
            verify(
                key, scheme=SSHSIG, signature=one.signature, media_type=sealing.PLAN, body=stored.plan.body, extra=b""
            )
            found.append(mission_id)
    return found


@pytest.fixture
def gonogo(simulator: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process, with no terminal; returns exit code, output and errors."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO()))
        code = run_command(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def reason(err: str) -> str:
    return str(json.loads(err.splitlines()[-1])["reason"])


def test_propose_signs_with_one_option(
    gonogo: Command, simulator: Simulator, shared_state: StateDirectory, plan_file: Path
) -> None:
    """The answer is the mission as ever; its plan has the proposer's signature."""
    code, out, err = gonogo("propose", "-f", str(plan_file), "--sign", str(shared_state.approver_key), "-o", "json")
    assert code == 0, err
    assert signed_by(simulator, shared_state) == [json.loads(out)["mission_id"]]


def test_every_command_that_proposes_signs(
    gonogo: Command, simulator: Simulator, shared_state: StateDirectory, plan_file: Path
) -> None:
    """`run` and `clone` take the key that `propose` takes; a clone is read before it is signed."""
    key, options = str(shared_state.approver_key), ("--yes", "-m", "as agreed", "--expires-in", "15m", "--as", "owner")
    code, out, err = gonogo("run", "-f", str(plan_file), "--sign", key, *options, "-o", "json")
    assert code == 0, err
    ran = json.loads(out)["mission_id"]
    assert signed_by(simulator, shared_state) == [ran]
    [approval] = simulator.missions[ran].approvals
    assert sealing.open_sealed(approval.body, evidence_pb2.Approval).comment == "as agreed"
    code, _, err = gonogo("clone", ran, "--sign", key, "-o", "json")
    assert (code, reason(err)) == (3, "NO_TERMINAL")
    code, out, err = gonogo("clone", ran, "--sign", key, "--yes", "-o", "json")
    assert code == 0, err
    assert signed_by(simulator, shared_state) == [ran, json.loads(out)["mission_id"]]


def test_run_does_not_sign_in_another_name(
    gonogo: Command, simulator: Simulator, shared_state: StateDirectory, plan_file: Path
) -> None:
    """What `approve` refuses, `run` refuses."""
    code, _, err = gonogo("run", "-f", str(plan_file), "--yes", "--as", "somebody", "-o", "json")
    assert code == 7, err
    assert not any(stored.approvals for stored in simulator.missions.values())


def test_propose_does_not_sign_another_plan(
    gonogo: Command, simulator: Simulator, shared_state: StateDirectory, plan_file: Path
) -> None:
    """The orchestrator adds a step; nothing is signed, and the command ends as not permitted."""
    simulator.lie_in_plan = lambda plan: plan.steps.add(step_id="x", delete_path=plan_pb2.DeletePath(path="b"))
    code, _, err = gonogo("propose", "-f", str(plan_file), "--sign", str(shared_state.approver_key), "-o", "json")
    assert (code, reason(err)) == (7, "PLAN_MISMATCH")
    assert not any(stored.plan.signatures for stored in simulator.missions.values())


def test_a_key_of_somebody_else_does_not_sign(
    gonogo: Command, simulator: Simulator, shared_state: StateDirectory, plan_file: Path
) -> None:
    """Who calls as the owner proposes as the owner; the agent's key is the agent's."""
    code, _, err = gonogo("propose", "-f", str(plan_file), "--sign", str(shared_state.proposer_key), "-o", "json")
    assert (code, reason(err)) == (7, "SIGNATURE_INVALID")
    assert not any(stored.plan.signatures for stored in simulator.missions.values())


def test_sign_shows_the_plan_and_asks(
    gonogo: Command,
    simulator: Simulator,
    shared_state: StateDirectory,
    plan_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a terminal it signs only when told not to ask; with one, only after a yes."""
    mission = json.loads(gonogo("propose", "-f", str(plan_file), "-o", "json")[1])["mission_id"]
    code, _, err = gonogo("sign", mission, "-o", "json")
    assert (code, reason(err)) == (3, "NO_TERMINAL")
    monkeypatch.setattr("client.commands.proposing.this_terminal", lambda: Terminal(ask=lambda _question: "n"))
    code, _, err = gonogo("sign", mission)
    assert (code, "objective" in err, "write_file" in err) == (3, True, True)
    assert signed_by(simulator, shared_state) == []
    monkeypatch.setattr("client.commands.proposing.this_terminal", lambda: Terminal(ask=lambda _question: "y"))
    assert gonogo("sign", mission)[0] == 0
    assert gonogo("sign", mission, "--yes", "-o", "json")[0] == 0
    assert signed_by(simulator, shared_state) == [mission, mission]


def test_the_agent_s_key_can_not_approve(
    gonogo: Command, simulator: Simulator, shared_state: StateDirectory, plan_file: Path
) -> None:
    """This side says why before anything is signed; the same for taking back and for denying."""
    mission = json.loads(gonogo("propose", "-f", str(plan_file), "-o", "json")[1])["mission_id"]
    gonogo("dry-run", mission)
    key = str(shared_state.proposer_key)
    for command in (["approve", mission, "--yes"], ["deny", mission, "-m", "no"], ["revoke", mission, "-m", "no"]):
        code, _, err = gonogo(*command, "--key", key, "-o", "json")
        assert (code, reason(err)) == (7, "APPROVER_UNKNOWN"), err
        assert "can propose and not approve" in err
    assert not simulator.missions[mission].approvals


async def test_a_program_proposes_signs_and_has_it_dry_run_in_one_call(
    simulator: Simulator, shared_state: StateDirectory, draft: plan_pb2.PlanDraft, owner: Signer
) -> None:
    """The dry run comes after the signature; where it can not be made, the answer has no report."""
    async with GonogoClient.connect(shared_state) as client:
        proposed = await client.propose(draft, dry_run=True, sign=owner)
        assert [one.key_id for one in proposed.plan.signatures] == [owner.key.public.key_id]
        assert client.verified(proposed).plan.mission_id == proposed.mission.mission_id
        simulator.refuse["dry_run"] = ("EXECUTOR_UNAVAILABLE", code_pb2.UNAVAILABLE)
        proposed = await client.propose(draft, dry_run=True, sign=owner)
        assert (proposed.report.body, len(proposed.plan.signatures)) == (b"", 1)
        simulator.refuse["sign"] = ("SIGNATURE_INVALID", code_pb2.FAILED_PRECONDITION)
        with pytest.raises(RemoteError):
            await client.propose(draft, sign=owner)


async def test_a_signer_in_another_s_name_is_refused_here(
    simulator: Simulator, shared_state: StateDirectory, draft: plan_pb2.PlanDraft, owner: Signer
) -> None:
    """A program that mistakes whose key it holds hears of it before it signs."""
    async with GonogoClient.connect(shared_state) as client:
        with pytest.raises(EvidenceError):
            await client.propose(draft, sign=replace(owner, person="ann"))
    assert not any(stored.plan.signatures for stored in simulator.missions.values())


def test_an_agent_without_a_trust_file_is_named_by_the_executor_s_policy(
    gonogo: Command, simulator: Simulator, tmp_path: Path, plan_file: Path
) -> None:
    """Elsewhere than on the executor's host nobody has the trust file; a key that nobody knows is said to be."""
    stranger = initialise(StateDirectory(root=tmp_path / "other")).state
    code, _, err = gonogo("propose", "-f", str(plan_file), "--sign", str(stranger.proposer_key), "-o", "json")
    assert (code, reason(err)) == (7, "APPROVER_UNKNOWN")
