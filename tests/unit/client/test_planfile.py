"""Plan files: every form that is taken, and every one that is refused, with line, problem and remedy."""

import json
from pathlib import Path

import pytest

from client.errors import PlanFileError
from client.exit_codes import ExitCode, for_error
from client.planfile import MAX_FILE_BYTES, parse
from gonogo.v1 import plan_pb2

pytestmark = pytest.mark.quick

HEAD = "objective: x\nworkspace: site\n"

FULL_YAML = """\
objective: Fix the spelling and drop the old page
workspace: site
scope: {paths: ["docs/**", "old.txt"], network: none, max_duration_seconds: 60, max_bytes: 1000}
failure_policy: roll_back
steps:
  - patch_file: {path: docs/guide.md, patch: "..."}
  - write_file: {path: docs/new.md, content: "hello\\n", mode: 0644}
    step_id: new
    description: the new page
    stage: edit
  - create_file: {path: raw.bin, data: AAEC}
  - create_directory: {path: off}
  - delete_path: {path: old.txt, recursive: true}
  - move_path: {path: a, to: b}
  - set_mode: {path: b, mode: 0755}
  - replace_text: {path: b, old: "", new: yes, expected_count: 2}
  - append_text: {path: b, content: 1:30}
  - read_file: {path: ~}
  - list_directory: {path: .}
  - search_files: {pattern: 'a.c', path: ., literal: false}
  - run_command: {argv: [make, -s, no], cwd: sub, env: {LEVEL: 1, ON: true}, success_codes: [0, 2]}
  - run_tests: {argv: [python3, -m, pytest], junit: build/junit.xml, expect: pass}
  - undo_step: {mission_id: m-0, step_id: s3}
"""


def full_draft() -> plan_pb2.PlanDraft:
    """What `FULL_YAML` says."""
    return plan_pb2.PlanDraft(
        objective="Fix the spelling and drop the old page",
        workspace="site",
        scope=plan_pb2.Scope(
            paths=["docs/**", "old.txt"],
            network=plan_pb2.NETWORK_ACCESS_NONE,
            max_duration_seconds=60,
            max_bytes="1000",
        ),
        failure_policy=plan_pb2.FAILURE_POLICY_ROLL_BACK,
        steps=[
            plan_pb2.Step(patch_file=plan_pb2.PatchFile(path="docs/guide.md", patch="...")),
            plan_pb2.Step(
                write_file=plan_pb2.WriteFile(path="docs/new.md", content="hello\n", mode="0644"),
                step_id="new",
                description="the new page",
                stage=plan_pb2.STAGE_EDIT,
            ),
            plan_pb2.Step(create_file=plan_pb2.CreateFile(path="raw.bin", data=b"\0\1\2")),
            plan_pb2.Step(create_directory=plan_pb2.CreateDirectory(path="off")),
            plan_pb2.Step(delete_path=plan_pb2.DeletePath(path="old.txt", recursive=True)),
            plan_pb2.Step(move_path=plan_pb2.MovePath(path="a", to="b")),
            plan_pb2.Step(set_mode=plan_pb2.SetMode(path="b", mode="0755")),
            plan_pb2.Step(replace_text=plan_pb2.ReplaceText(path="b", old="", new="yes", expected_count=2)),
            plan_pb2.Step(append_text=plan_pb2.AppendText(path="b", content="1:30")),
            plan_pb2.Step(read_file=plan_pb2.ReadFile(path="~")),
            plan_pb2.Step(list_directory=plan_pb2.ListDirectory(path=".")),
            plan_pb2.Step(search_files=plan_pb2.SearchFiles(pattern="a.c", path=".")),
            plan_pb2.Step(
                run_command=plan_pb2.RunCommand(
                    argv=["make", "-s", "no"], cwd="sub", env={"LEVEL": "1", "ON": "true"}, success_codes=[0, 2]
                )
            ),
            plan_pb2.Step(
                run_tests=plan_pb2.RunTests(
                    argv=["python3", "-m", "pytest"],
                    junit="build/junit.xml",
                    expect=plan_pb2.TEST_EXPECTATION_PASS,
                )
            ),
            plan_pb2.Step(undo_step=plan_pb2.UndoStep(mission_id="m-0", step_id="s3")),
        ],
    )


def step(text: str) -> str:
    """Return a plan of one step."""
    return f"{HEAD}steps:\n  - {text}\n"


def test_a_yaml_plan_says_exactly_what_is_written() -> None:
    """Every kind of step, every scalar as written, is the draft a reader expects."""
    assert parse(FULL_YAML.encode()) == full_draft()


def test_a_json_plan_is_read_alike() -> None:
    """The same plan as JSON is the same draft, whatever its blanks and escapes."""
    plan = {
        "objective": "Grüße \U0001f600",
        "workspace": "site",
        "scope": {"max_duration_seconds": 60},
        "steps": [{"write_file": {"path": "a/b", "content": "tab\there"}}, {"delete_path": {"path": "x"}}],
    }
    expected = plan_pb2.PlanDraft(
        objective="Grüße \U0001f600",
        workspace="site",
        scope=plan_pb2.Scope(max_duration_seconds=60),
        steps=[
            plan_pb2.Step(write_file=plan_pb2.WriteFile(path="a/b", content="tab\there")),
            plan_pb2.Step(delete_path=plan_pb2.DeletePath(path="x")),
        ],
    )
    assert parse(json.dumps(plan).encode()) == expected
    assert parse(json.dumps(plan, indent="\t", ensure_ascii=False).encode()) == expected
    assert parse(json.dumps(plan).replace("a/b", "a\\/b").encode()) == expected


@pytest.mark.parametrize(
    "text",
    ["{objective: x, workspace: site, steps: [{delete_path: {path: a}}]}", "\ufeff" + step("delete_path: {path: a}")],
)
def test_lenient_forms_are_taken(text: str) -> None:
    """YAML in braces and a byte order mark are no reason to refuse."""
    assert parse(text.encode()).steps[0].delete_path.path == "a"


BAD = [
    ("", 1, "the file is empty"),
    ("# nothing\n", 1, "the file is empty"),
    ("just text", 1, "the plan must be fields and values"),
    ("- a\n- b\n", 1, "the plan must be fields and values"),
    ("[]", 1, "the plan must be fields and values"),
    ("{}", 1, "the plan: objective is missing"),
    ("objective: x\nsteps: []\n", 1, "the plan: workspace is missing"),
    (HEAD, 1, "the plan: steps is missing"),
    (HEAD + "steps: []\n", 1, "the plan has no steps"),
    (HEAD + "steps: {delete_path: {path: a}}\n", 3, "the plan: steps must be a list"),
    (HEAD + "steps:\n", 3, "the plan: steps must be a list"),
    (HEAD + "steps:\n  - delete_path\n", 4, "step 1 must be fields and values"),
    (HEAD + "step: []\n", 3, "the plan has no field 'step'; did you mean steps?"),
    (HEAD + "colour: red\n", 3, "the plan has no field 'colour'"),
    (HEAD + "objective: y\n", 3, "'objective' is there twice, first on line 1"),
    ("objective:\nworkspace: site\nsteps: []\n", 1, "the plan: objective has no value"),
    ("objective: [a]\nworkspace: site\n", 1, "the plan: objective must be one value"),
    (HEAD + "failure_policy: rollback\n", 3, "failure_policy can not be 'rollback'; did you mean roll_back?"),
    (HEAD + "failure_policy: FAILURE_POLICY_STOP\n", 3, "failure_policy can not be 'FAILURE_POLICY_STOP'"),
    (HEAD + "failure_policy: unspecified\n", 3, "failure_policy can not be 'unspecified'"),
    (HEAD + "failure_policy: 2\n", 3, "failure_policy can not be '2'"),
    (HEAD + "scope: {network: off}\n", 3, "network can not be 'off'"),
    (HEAD + "scope: none\n", 3, "the plan: scope must be fields and values"),
    (HEAD + "scope: {path: [a]}\n", 3, "has no field 'path'; did you mean paths?"),
    (HEAD + "scope: {paths: a}\n", 3, "scope: paths must be a list"),
    (HEAD + "scope: {paths: [[a]]}\n", 3, "scope: paths must be one value"),
    (HEAD + "scope: {max_duration_seconds: 1m}\n", 3, "must be a whole number from 0 to 4294967295, not '1m'"),
    (HEAD + "scope: {max_duration_seconds: '60'}\n", 3, "must be a whole number"),
    (HEAD + "scope: {max_duration_seconds: 060}\n", 3, "not '060'"),
    (HEAD + "scope: {max_duration_seconds: 1:30}\n", 3, "not '1:30'"),
    (HEAD + "scope: {max_duration_seconds: 6e1}\n", 3, "not '6e1'"),
    (HEAD + "scope: {max_duration_seconds: -1}\n", 3, "not '-1'"),
    (HEAD + "scope: {max_duration_seconds: 4294967296}\n", 3, "not '4294967296'"),
    (HEAD + "scope: {max_bytes: 1G}\n", 3, "max_bytes must be a whole number"),
    (step("delete_pth: {path: a}"), 4, "step 1 has no field 'delete_pth'; did you mean delete_path?"),
    (step("shell: rm -rf /"), 4, "step 1 has no field 'shell'"),
    (step("description: nothing"), 4, "step 1 names no kind of step"),
    (step("{}"), 4, "step 1 names no kind of step"),
    (step("{delete_path: {path: a}, read_file: {path: a}}"), 4, "step 1 names two kinds: delete_path and read_file"),
    (step("delete_path: a"), 4, "step 1, delete_path must be fields and values"),
    (step("delete_path: {}"), 4, "step 1, delete_path: path is missing"),
    (step("delete_path: {path: a, recursive: yes}"), 4, "recursive must be true or false, not 'yes'"),
    (step("delete_path: {path: a, recursive: 'true'}"), 4, "recursive must be true or false"),
    (step("delete_path: {path: a, recursive: True}"), 4, "recursive must be true or false, not 'True'"),
    (step("delete_path: {path: a, paht: b}"), 4, "did you mean path?"),
    (step("write_file: {path: a}"), 4, "step 1, write_file: content or data is missing"),
    (step("write_file: {path: a, content: b, data: YQ==}"), 4, "content and data exclude each other"),
    (step("write_file: {path: a, data: '%'}"), 4, "data must be base64"),
    (step("write_file: {path: a, data: YQ}"), 4, "data must be base64"),
    (step("write_file: {path: a, content: }"), 4, "content has no value"),
    (step("patch_file: {path: a}"), 4, "patch is missing"),
    (step("move_path: {path: a}"), 4, "to is missing"),
    (step("set_mode: {path: a}"), 4, "mode is missing"),
    (step("undo_step: {mission_id: m-1}"), 4, "step_id is missing"),
    (step("undo_step: {step_id: s1}"), 4, "mission_id is missing"),
    (step("run_command: {argv: make -s lint}"), 4, "step 1, run_command: argv must be a list"),
    (step("run_command: {cwd: a}"), 4, "argv is missing"),
    (step("run_command: {argv: [a], env: [A=1]}"), 4, "env must be fields and values"),
    (step("run_command: {argv: [a], env: {A: [1]}}"), 4, "env: A must be text"),
    (step("run_command: {argv: [a], env: {A: 1, A: 2}}"), 4, "'A' is there twice"),
    (step("run_tests: {argv: [a], expect: green}"), 4, "expect can not be 'green'"),
    (step("read_file: {path: a}\n    stage: reading"), 5, "stage can not be 'reading'"),
    (
        step("{step_id: s, read_file: {path: a}}\n  - {step_id: s, read_file: {path: b}}"),
        1,
        "two steps have the id 's'",
    ),
    (step("read_file: &a {path: a}\n  - read_file: *a"), 4, "an anchor (&a)"),
    (step("read_file: *a"), 4, "an alias (*a)"),
    (step("read_file: {path: !!str a}"), 4, "a tag (tag:yaml.org,2002:str)"),
    (step("read_file: {path: !!python/object/apply:os.system [ls]}"), 4, "a tag"),
    (step("read_file: {<<: {path: a}}"), 4, "has no field '<<'"),
    (step("read_file: {[a]: b}"), 4, "a field's name that is no text"),
    (step("read_file: {path: a}") + "---\nobjective: y\n", 5, "a second document"),
    ("objective: x\n\tworkspace: site\n", 2, "not valid YAML"),
    ("objective: 'x\n", 2, "not valid YAML"),
    ("%YAML 9\n", 1, "not valid YAML"),
    ("objective: \x01\n", 1, "not valid YAML"),
    ("[" * 100, 1, "nested deeper than 16 levels"),
    ("{" + '"a":{' * 100, 1, "nested deeper than 16 levels"),
    ('{"objective": null}', 1, "null is no value"),
    ('{\n"objective": "x",\n"objective": "y"}', 3, "'objective' is there twice, first on line 2"),
    ('{"objective": "\\ud800", "workspace": "s", "steps": []}', 1, "objective holds half a character"),
    ('{"objective": "x", "workspace": "s", "steps": [{"delete_path": {"path": "a", "recursive": 1}}]}', 1, "not '1'"),
    ('{"objective": "x"} trailing', 1, "not valid YAML"),
    ('{"\\ud800": "x"}', 1, "a name holds half a character"),
    (
        '{"objective": "x", "workspace": "s", "steps": [{"run_command": {"argv": ["a"], "env": {"\\ud800": []}}}]}',
        1,
        "env holds half a character",
    ),
    (HEAD + "# a note\u2028failure_policy: continue\n", 3, "a line break that can not be seen"),
    (HEAD + "# a note\x85failure_policy: continue\n", 3, "a line break that can not be seen"),
    (HEAD + "# a note\rfailure_policy: continue\n", 3, "a line break that can not be seen"),
]


@pytest.mark.parametrize(("text", "line", "problem"), BAD)
def test_a_bad_plan_file_is_refused_with_line_problem_and_remedy(text: str, line: int, problem: str) -> None:
    """Whatever is wrong, the reason is PLAN_INVALID, and a person is told where, what and what to do."""
    with pytest.raises(PlanFileError) as refused:
        parse(text.encode())
    error = refused.value
    assert error.reason == "PLAN_INVALID"
    assert problem in error.message
    assert (error.line, error.message.startswith(f"line {line}: ")) == (line, True)
    assert error.remedy
    assert for_error(error) == ExitCode.ERROR


def test_bytes_that_are_no_text_are_refused() -> None:
    """A file that is not UTF-8 names the line where that begins."""
    with pytest.raises(PlanFileError, match="line 2: not UTF-8"):
        parse(b"objective: x\nworkspace: \xff\n")


def test_a_huge_file_is_refused_unread() -> None:
    """The size limit holds before anything is parsed."""
    with pytest.raises(PlanFileError, match="the limit is"):
        parse(b"a" * (MAX_FILE_BYTES + 1))


def test_a_thousand_steps_are_taken_and_one_more_is_not() -> None:
    """The limit of the contract holds in the file already."""
    steps = "".join(f"  - read_file: {{path: f{number}}}\n" for number in range(1000))
    assert len(parse(f"{HEAD}steps:\n{steps}".encode()).steps) == 1000
    with pytest.raises(PlanFileError, match="1001 steps; the limit is 1000"):
        parse(f"{HEAD}steps:\n{steps}  - read_file: {{path: more}}\n".encode())


LIVE_STEP = """\
  - http_request:
      method: POST
      url: https://example.org/
      headers: {X-Number: 1, X-Text: "a: b"}
    needs_approval: true
    compensation: {call_tool: {server: mail, tool: recall}}
"""


def test_headers_are_names_and_values_or_a_list_of_both() -> None:
    """Both forms say the same; a request need not have a body, and has one at most."""
    listed = LIVE_STEP.replace(
        '{X-Number: 1, X-Text: "a: b"}', '[{name: X-Number, value: 1}, {name: X-Text, value: "a: b"}]'
    )
    one, other = (parse(f"{HEAD}steps:\n{text}".encode()) for text in (LIVE_STEP, listed))
    assert one == other
    assert [(header.name, header.value) for header in one.steps[0].http_request.headers] == [
        ("X-Number", "1"),
        ("X-Text", "a: b"),
    ]
    assert one.steps[0].http_request.WhichOneof("body") is None
    with pytest.raises(PlanFileError, match="exclude each other"):
        parse(f"{HEAD}steps:\n  - http_request: {{method: PUT, url: u, content: a, data: YQ==}}".encode())


def test_arguments_of_a_tool_may_be_json_text() -> None:
    """What `show` prints as JSON can be read again: the text stands for itself, quoted."""
    text = json.dumps(
        {
            "objective": "x",
            "workspace": "w",
            "steps": [{"call_tool": {"server": "s", "tool": "t", "arguments": '{"a": null}'}}],
        }
    )
    assert parse(text.encode()).steps[0].call_tool.arguments == '{"a": null}'


def test_json_null_is_a_value_only_among_json_values() -> None:
    """As an argument or a parameter it stands; anywhere else it is refused, a variable's value included."""

    def plan(step: object) -> bytes:
        return json.dumps({"objective": "x", "workspace": "w", "steps": [step]}).encode()

    draft = parse(plan({"run_sql": {"database": "d", "statement": "s", "parameters": [None, [None]]}}))
    assert list(draft.steps[0].run_sql.parameters) == ["null", "[null]"]
    for step in (
        {"run_sql": {"database": None, "statement": "s"}},
        {"run_live": {"argv": ["a"], "access": "host", "env": {"arguments": None}}},
        {"http_request": {"method": "PUT", "url": "u", "data": None}},
        {"http_request": {"method": "PUT", "url": "u", "headers": {"A": None}}},
        {"call_tool": {"server": "s", "tool": "t"}, "compensation": None},
        {"run_command": {"argv": None}},
    ):
        with pytest.raises(PlanFileError, match="null is no value"):
            parse(plan(step))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("  - run_live: {argv: [a]}", "access is missing"),
        ("  - run_live: {argv: [a], access: all}", "access can not be 'all'"),
        ("  - fetch_url: {}", "url is missing"),
        ("  - http_request: {method: PUT, url: u, headers: [a]}", "must be fields and values"),
        ("  - http_request: {method: PUT, url: u, headers: a}", "must be names and values"),
        ("  - call_tool: {server: s, tool: t}\n    compensation: {description: d}", "is missing"),
        ("  - call_tool: {server: s, tool: t}\n    compensation: {read_file: {path: a}}", "has no field 'read_file'"),
        ("  - call_tool: {server: s, tool: t, arguments: {a: }}", "there is no value"),
        ("  - call_tool: {server: s, tool: t, arguments: [a]}", "must be one value"),
        ("  - run_sql: {database: d, statement: s, parameters: 1}", "must be a list"),
        ("  - call_tool: {server: s, tool: t}\n    needs_approval: yes", "must be true or false"),
        ("  - read_file: {path: a}\npause: {default_action: retry}", "default_action can not be 'retry'"),
        ("  - read_file: {path: a}\npause: {deadline_seconds: 1h}", "must be a whole number"),
    ],
)
def test_a_slip_in_a_live_step_is_named(text: str, problem: str) -> None:
    """Each with its line and a remedy."""
    with pytest.raises(PlanFileError) as caught:
        parse(f"{HEAD}steps:\n{text}\n".encode())
    assert problem in str(caught.value)
    assert caught.value.remedy


def test_the_page_about_plan_files_names_every_kind_and_every_field() -> None:
    """Its example is a plan, and each field of each kind stands in its tables."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "plan-files.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    assert len(parse(example.encode()).steps) == 7
    tables = [line for line in page.splitlines() if line.startswith("| `")]
    for field in plan_pb2.Step.DESCRIPTOR.oneofs_by_name["action"].fields:
        row = next(line for line in tables if f"`{field.name}`" in line.split("|")[1])
        assert field.message_type is not None
        assert all(f"`{one.name}`" in row for one in field.message_type.fields), row
