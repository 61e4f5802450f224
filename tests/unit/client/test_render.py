"""What a person is shown: nothing hidden gets through, and nothing is left out silently."""

import ast
from pathlib import Path

import pytest

import client
from client.changes import net_changes, time_text
from client.diffs import split_lines, unified
from client.exit_codes import BY_REASON, LOCAL_REASONS, ExitCode, for_outcome, for_reason, for_report, table_text
from client.json_form import to_json
from client.render.events import event_line
from client.render.plans import plan_text
from client.render.reports import changes_text, report_text, summary
from gonogo.v1 import errors_pb2, events_pb2, evidence_pb2, plan_pb2

pytestmark = pytest.mark.quick

HOSTILE = "a\x1b[2K\u202eb\u200b\U000e0041\rc"
SHOWN = "a\\x1b[2K\\u{202e}b\\u{200b}\\u{e0041}\\x0dc"


def change(path: str, old: str = "", new: str = "", moved_from: str = "") -> evidence_pb2.Change:
    found = evidence_pb2.Change(path=path, kind=evidence_pb2.CHANGE_KIND_MODIFY, moved_from=moved_from)
    for node, digest in ((found.old, old), (found.new, new)):
        if digest:
            node.CopyFrom(node_of(digest))
    return found


def node_of(digest: str) -> evidence_pb2.NodeState:
    return evidence_pb2.NodeState(type=evidence_pb2.NODE_TYPE_FILE, mode="0644", digest=digest, size="5")


def nothing_hidden(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def test_every_text_of_a_plan_is_made_safe() -> None:
    """Objective, paths, arguments, contents and variables show their hidden characters."""
    plan = plan_pb2.Plan(objective=HOSTILE, proposer=HOSTILE, scope=plan_pb2.Scope(paths=[HOSTILE]))
    plan.steps.add(
        step_id=HOSTILE,
        description=HOSTILE,
        run_command=plan_pb2.RunCommand(argv=["rm", HOSTILE], env={HOSTILE: HOSTILE}),
    )
    plan.steps.add(step_id="s2", write_file=plan_pb2.WriteFile(path=HOSTILE, content=f"{HOSTILE}\n{HOSTILE}"))
    text = plan_text(plan, "sha256:0")
    assert nothing_hidden(text)
    assert text.count(SHOWN) == 9
    assert text.count(SHOWN.replace("\\", "\\\\")) == 2  # in the lists, which quote what they hold


def test_a_program_is_shown_as_a_list() -> None:
    """One argument with a blank is not two arguments."""
    plan = plan_pb2.Plan()
    plan.steps.add(step_id="s1", run_command=plan_pb2.RunCommand(argv=["git", "commit -m", 'say "hi"']))
    assert 'argv: ["git", "commit -m", "say \\"hi\\""]' in plan_text(plan, "")


def test_every_text_of_a_report_is_made_safe() -> None:
    """Paths, facts, problems, matches and output show their hidden characters."""
    report = evidence_pb2.Report(report_id=HOSTILE)
    report.problems.add(path=HOSTILE, message=HOSTILE, remedy=HOSTILE, reason=HOSTILE)
    report.risk.facts.add(kind=HOSTILE, path=HOSTILE, detail=HOSTILE)
    step = report.steps.add(step_id=HOSTILE, kind=HOSTILE, changes=[change(HOSTILE, new="sha256:1")])
    step.command.stdout.head = f"{HOSTILE}\n"
    step.command.stderr.head = HOSTILE
    found = report.steps.add(step_id="s2")
    found.search.matches.add(path=HOSTILE, text=HOSTILE)
    text = report_text(report, HOSTILE)
    assert nothing_hidden(text)
    assert "\u202e" not in text


def test_what_is_left_out_is_said() -> None:
    """Long contents and long lines end with how much more there is."""
    plan = plan_pb2.Plan()
    plan.steps.add(step_id="s1", write_file=plan_pb2.WriteFile(path="a", content="line\n" * 100))
    plan.steps.add(step_id="s2", write_file=plan_pb2.WriteFile(path="b", content="x" * 1000))
    text = plan_text(plan, "")
    assert "… 61 more lines" in text
    assert "… 600 more characters" in text


def test_net_changes_count_a_path_once() -> None:
    """Created and deleted again is nothing; moved twice is one move; changed back is nothing."""
    steps = [
        [change("gone.txt", new="sha256:1"), change("b", old="sha256:a", new="sha256:a", moved_from="a")],
        [change("gone.txt", old="sha256:1"), change("c", old="sha256:a", new="sha256:a", moved_from="b")],
        [change("back.txt", old="sha256:1", new="sha256:2")],
        [change("back.txt", old="sha256:2", new="sha256:1"), change("new.txt", new="sha256:3")],
    ]
    net = net_changes(steps)
    assert [(one.path, one.kind, one.moved_from) for one in net] == [(b"c", "move", b"a"), (b"new.txt", "create", b"")]
    assert summary(net) == "1 created, 1 moved"


def test_a_file_put_in_the_place_of_a_moved_one_is_two_changes() -> None:
    """The old name is not gone then, so the move is not the whole story."""
    net = net_changes([[change("b", old="sha256:a", new="sha256:a", moved_from="a")], [change("a", new="sha256:z")]])
    assert [(one.path, one.kind) for one in net] == [(b"a", "modify"), (b"b", "create")]


def test_only_the_file_itself_is_told_as_moved() -> None:
    """What was made in between under a moved file's old or new name is new, whatever becomes of it."""
    move = change("b", old="sha256:a", new="sha256:a", moved_from="a")
    again = change("c", old="sha256:z", new="sha256:z", moved_from="a")
    net = net_changes([[move], [change("a", new="sha256:z")], [again]])
    assert [(one.path, one.kind, one.moved_from) for one in net] == [(b"b", "move", b"a"), (b"c", "create", b"")]
    net = net_changes([[move], [change("b", old="sha256:a")], [change("b", new="sha256:z")]])
    assert [(one.path, one.kind) for one in net] == [(b"a", "delete"), (b"b", "create")]


def test_a_diff_spells_out_hidden_characters_of_both_sides() -> None:
    """Names and contents alike."""
    (net,) = net_changes([[change(HOSTILE, old="sha256:1", new="sha256:2")]])
    lines = list(unified(net, split_lines(HOSTILE.encode()) or [], split_lines(b"plain\n") or []))
    assert all(nothing_hidden(line) for line in lines)
    assert lines[0] == f"--- a/{SHOWN}"


def test_a_diff_of_large_rewritten_files_ends_soon() -> None:
    """Two long files without a common line are shown as one hunk between what they share."""
    (net,) = net_changes([[change("a", old="sha256:1", new="sha256:2")]])
    old = ["head", *(f"old {number}" for number in range(30_000)), "tail"]
    new = ["head", *(f"new {number}" for number in range(30_000)), "tail"]
    lines = list(unified(net, old, new))
    assert lines[2:5] == ["@@ -1,30001 +1,30001 @@", " head", "-old 0"]
    assert len(lines) == 60_004


def test_an_event_is_one_line_that_says_no_where_it_is_no() -> None:
    """A failed step says so, a text with blanks is quoted, nothing hidden gets through."""
    failed = events_pb2.StepCompleted(step_id="s1", kind="write_file")
    line = event_line(events_pb2.Event(sequence=3, step_completed=failed))
    assert line.endswith("step_completed        step_id=s1 kind=write_file success=no")
    reason = events_pb2.MissionRejected(reason=f'say "why" {HOSTILE}')
    line = event_line(events_pb2.Event(mission_rejected=reason))
    assert nothing_hidden(line)
    assert 'reason="say \\"why\\" a' in line
    assert "\n" not in event_line(events_pb2.Event(mission_rejected=events_pb2.MissionRejected(reason="a\nb")))


def test_json_has_numbers_short_names_and_nulls() -> None:
    """Decimal texts are numbers, enums short, what is unset is null."""
    step = evidence_pb2.StepReport(step_id="s1", duration_ms=7)
    step.command.stdout.total_bytes = "12345678901"
    data = to_json(step)
    assert data["command"]["stdout"]["total_bytes"] == 12345678901
    assert data["command"]["exit_code"] is None
    assert data["stage"] is None
    assert "tests" not in data
    assert to_json(evidence_pb2.NodeState(type=evidence_pb2.NODE_TYPE_FILE, size="3"))["type"] == "file"


def test_the_exit_code_table_holds_for_the_whole_vocabulary() -> None:
    """Every reason of the contract has a code, and every code is in the printed table."""
    codes = {name: for_reason(name.removeprefix("REASON_")) for name in errors_pb2.Reason.DESCRIPTOR.values_by_name}
    assert codes["REASON_NOT_APPROVED"] is ExitCode.WAITING
    assert codes["REASON_APPROVAL_EXPIRED"] is ExitCode.REJECTED
    assert codes["REASON_BASE_DRIFTED"] is ExitCode.DRIFT
    assert codes["REASON_SIGNATURE_INVALID"] is ExitCode.NOT_PERMITTED
    assert codes["REASON_ALREADY_CLAIMED"] is ExitCode.ALREADY_EXECUTED
    assert codes["REASON_NOT_FOUND"] is ExitCode.ERROR
    known = {name.removeprefix("REASON_") for name in codes} | {"USAGE", "NO_TERMINAL", "DECLINED"}
    assert BY_REASON.keys() <= known
    assert all(f"{code.value}     " in table_text() for code in ExitCode)
    assert (for_report("blocked"), for_report("failed"), for_report("success")) == (7, 6, 0)
    assert (for_outcome("rolled_back", diverged=False), for_outcome("rolled_back", diverged=True)) == (6, 5)


def test_the_client_s_own_reasons_are_the_listed_ones() -> None:
    """Whatever error the client makes itself has a reason of the contract or of the list, and the list has no other."""
    of_contract = {name.removeprefix("REASON_") for name in errors_pb2.Reason.DESCRIPTOR.values_by_name}
    trees = [ast.parse(file.read_text("utf-8")) for file in Path(client.__file__).parent.rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    made = {
        call.args[0].value
        for call in calls
        if ast.unparse(call.func).endswith("Error") and isinstance(call.args[0], ast.Constant)
    }
    assert {reason for reason in made if str(reason).isupper()} - of_contract == LOCAL_REASONS - of_contract


def timed(
    path: str, kind: "evidence_pb2.ChangeKind.ValueType", at: int, digest: str = "sha256:1"
) -> evidence_pb2.Change:
    """A change that sets a modification time and leaves the file as it is."""
    return evidence_pb2.Change(
        path=path, kind=kind, old=node_of("sha256:1"), new=node_of(digest), modified_at_ns=str(at)
    )


def test_a_modification_time_is_a_change_by_itself() -> None:
    """It is counted, listed and explained; what writes the path later, or moves it, is followed."""
    metadata, modify = evidence_pb2.CHANGE_KIND_METADATA, evidence_pb2.CHANGE_KIND_MODIFY
    at = 978_307_200 * 10**9
    (net,) = net_changes([[timed("a", metadata, at)]])
    assert (net.kind, summary([net]), net.as_json()["modified_at"]) == (
        "metadata",
        "1 with another modification time",
        "2001-01-01T00:00:00Z",
    )
    assert changes_text([net]).split("\n")[1].endswith("modification time, modified 2001-01-01T00:00:00Z")
    written = change("a", old="sha256:1", new="sha256:2")
    written.kind = modify
    assert [one.modified_at_ns for one in net_changes([[timed("a", metadata, at)], [written]])] == [None]
    move = change("b", old="sha256:1", new="sha256:1", moved_from="a")
    move.kind = evidence_pb2.CHANGE_KIND_MOVE
    (moved,) = net_changes([[timed("a", metadata, at)], [move]])
    assert (moved.path, moved.kind, moved.modified_at_ns) == (b"b", "move", at)
    assert net_changes([[timed("a", metadata, at)], [change("a", old="sha256:1")]])[0].kind == "delete"


def test_a_directorys_time_ends_with_the_next_name_in_it() -> None:
    """What a later step puts there, or takes away, moves it."""
    touch = evidence_pb2.Change(path="d", kind=evidence_pb2.CHANGE_KIND_METADATA, modified_at_ns="5")
    for node in (touch.old, touch.new):
        node.CopyFrom(evidence_pb2.NodeState(type=evidence_pb2.NODE_TYPE_DIRECTORY, mode="0755"))
    new = evidence_pb2.Change(path="d/n", kind=evidence_pb2.CHANGE_KIND_CREATE, new=node_of("sha256:1"))
    assert [(one.path, one.modified_at_ns) for one in net_changes([[touch, new]])] == [(b"d", 5), (b"d/n", None)]
    assert [one.path for one in net_changes([[touch], [new]])] == [b"d/n"]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (None, ""),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (10**21, "1000000000000 s after 1970"),
    ],
)
def test_a_time_is_shown_to_its_last_digit(nanoseconds: int | None, text: str) -> None:
    """Also before 1970, and where no calendar goes."""
    assert time_text(nanoseconds) == text


def test_attributes_and_odd_targets_are_shown() -> None:
    """A change of attributes names them; a link's target that is no text is spelt out."""
    old, new = node_of("sha256:1"), node_of("sha256:1")
    old.xattrs.add(name="user.gone", value=b"1")
    new.xattrs.add(name=HOSTILE, value=b"2")
    attributes = evidence_pb2.Change(path="a", kind=evidence_pb2.CHANGE_KIND_METADATA, old=old, new=new)
    link = evidence_pb2.Change(path="l", kind=evidence_pb2.CHANGE_KIND_CREATE)
    link.new.CopyFrom(evidence_pb2.NodeState(type=evidence_pb2.NODE_TYPE_SYMLINK, mode="0777", raw_link_target=b"\xff"))
    net = net_changes([[attributes, link]])
    text = changes_text(net)
    assert nothing_hidden(text)
    assert f"attribute {SHOWN} set, attribute user.gone removed" in text
    assert "l → \\xff" in text
    assert summary(net) == "1 created, 1 with other attributes"


def test_a_reports_notices_are_shown() -> None:
    """Each with its path, every text of it made safe."""
    report = evidence_pb2.Report(report_id="r-1")
    report.notices.add(kind="foreign_owner", path=HOSTILE, message=HOSTILE)
    text = report_text(report, "")
    assert nothing_hidden(text)
    assert f"foreign_owner  {SHOWN}  {SHOWN}" in text


def test_a_report_says_who_proposed_and_what_is_asked_for() -> None:
    """What is proven, not what the plan claims; every name of it made safe."""
    report = evidence_pb2.Report(report_id="r-1")
    assert "proposer" not in report_text(report, "")
    report.proposer.CopyFrom(
        evidence_pb2.Proposer(kind=evidence_pb2.PROPOSER_KIND_AGENT, person=HOSTILE, sponsor=HOSTILE)
    )
    report.demand.requirements.add(count=2, group=HOSTILE)
    report.demand.rules.append(HOSTILE)
    report.demand.hardware_key = True
    text = report_text(report, "")
    assert nothing_hidden(text)
    assert f"{SHOWN}, an agent of {SHOWN}, who signed the plan" in text
    assert f"2 of group {SHOWN}; with hardware keys; by rules {SHOWN}" in text
    report.demand.refused = "rule frozen refuses this"
    report.proposer.kind = evidence_pb2.PROPOSER_KIND_UNKNOWN
    text = report_text(report, "")
    assert "refused, whoever approves: rule frozen refuses this" in text
    assert "unknown: the plan has no signature of anybody whom the executor knows" in text


def test_output_and_matches_that_are_cut_say_so() -> None:
    """How many bytes there were, and how many matches more."""
    report = evidence_pb2.Report(report_id="r-1")
    step = report.steps.add(step_id="s1")
    step.command.stdout.CopyFrom(evidence_pb2.Excerpt(head="a", tail="z", total_bytes="90000", truncated=True))
    found = report.steps.add(step_id="s2")
    found.search.count = 30
    for number in range(20):
        found.search.matches.add(path="a", line=number, text="x")
    text = report_text(report, "")
    assert "the end of 90000 bytes" in text
    assert "… 22 more" in text


def test_the_isolation_that_a_plan_demands_is_shown() -> None:
    """With its limits."""
    plan = plan_pb2.Plan(scope=plan_pb2.Scope(min_ladder_level=plan_pb2.LADDER_LEVEL_L3))
    assert "L3 or better" in plan_text(plan, "")
