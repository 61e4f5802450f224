"""The command line's table: which commands there are, and where each one is.

A command's module is imported when it is used, so that help and usage errors cost no gRPC, no protobuf and no
cryptography.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from client.output import Format
from client.session import new_session, set_output, set_state, set_token_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a command is and what it is for."""

    module: str
    function: str
    help: str
    form: str = ""
    """What else its own help shows, line by line: the form of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Commands under one word, such as `gonogo caller add`."""

    help: str
    commands: Mapping[str, Entry]


def _entry(place: str, text: str, form: str = "") -> Entry:
    module, function = place.split(".")
    return Entry(module=module, function=function, help=text, form=form)


CASES = """\
trust: trust.toml             # left out: the state directory's
cases:
  - name: two of sre for production
    facts:                    # what is left out is not known
      step_kinds: [write_file]
      workspace: site
      risk: high
      risk_facts: [runs_later]
      changes: 3
      size: 1024
      at: 2027-01-04T10:00:00Z
      proposer: {kind: agent, person: bot, sponsor: alice}
    votes: [bob, {person: carol, hardware: true}]
    expect:                   # at least one of these
      met: true
      reason: QUORUM_NOT_MET
      requirements: [{count: 2, group: sre}]
      rules: [production]
      approve_steps: [write_file]"""


RATES = """\
With -o json every rate is a number from 0 to 1 with four digits behind the point, as many
as are known; success_rate, low and high are null where there were fewer than five outcomes.
The options choose rates, and --kind also failures; stages and calibration are of everything."""

EXECUTE = "Execute an approved mission, once, to its end or to where it waits for a person."
RUN = "Propose, dry-run, show, ask on the terminal, execute; where it waits, ask again."
WATCH = "Follow a mission's events until it ends, or waits for a person."
PAUSE = "Have a running mission pause before its next step; nothing runs until it goes on."
RESUME = "Have a paused mission go on, once its workspace and approvals were looked at again."
STOP = "End a mission: what runs is killed, what is committed stays or, with --roll-back, is undone."
RETRY = "Run the failed step of a paused mission again: the same approved bytes."
REPAIR = "Give a mission another plan for the rest of its work; it needs its own dry run and approval."
CANCEL = "Cancel a mission that does not run yet, or give one up whose outcome nobody knows."
APPROVE_STEP = "Verify a step that waits for its own signature, show it, and sign that it may be committed."
DENY_STEP = "Sign that a step that waits may not be committed: the execution stops."
RECONCILE = "Sign whether an effect happened of which nobody could tell; it is never repeated by itself."
QUEUE = "Show what waits for its turn: place, priority, and why not now."
SIGNALS = "Show what outcomes have taught: success rates, calibration, recurring failures, slow stages."

COMMANDS: dict[str, Entry | Group] = {
    "init": _entry("installation.init", "Make keys, certificates and the trust file in the state directory."),
    "up": _entry("installation.up", "Run both services in the foreground."),
    "doctor": _entry("installation.doctor", "Check this installation and say what to do."),
    "chat": _entry("chatting.chat", "Say what shall be done; may propose a mission, never executes one."),
    "messages": _entry("chatting.messages", "Show the messages of a chat session."),
    "propose": _entry("proposing.propose", "Propose the plan in a file as a mission."),
    "sign": _entry("proposing.sign", "Show a mission's plan, and sign it as its proposer."),
    "clone": _entry("proposing.clone", "Propose a mission's plan again, as a new mission."),
    "dry-run": _entry(
        "proposing.dry_run", "Run a mission's plan in a throw-away copy and report what it would change."
    ),
    "undo": _entry("undoing.undo", "Propose the reverse of an ended mission, as a new mission."),
    "list": _entry("showing.list_missions", "List missions, newest first."),
    "show": _entry("showing.show", "Show a mission with its plan, report, approvals and receipt."),
    "diff": _entry("showing.diff", "Show what the dry run changed, file by file."),
    "whiteboard": _entry("showing.whiteboard", "Show how a mission stands."),
    "approve": _entry("deciding.approve", "Verify plan and report, show them, and sign an approval."),
    "revoke": _entry("revoking.revoke", "Take your approvals of a mission back, at the executor itself."),
    "deny": _entry("revoking.deny", "End a mission for good, at the executor itself."),
    "reject": _entry("deciding.reject", "Reject a proposed mission."),
    "cancel": _entry("deciding.cancel", CANCEL),
    "execute": _entry("executing.execute", EXECUTE),
    "run": _entry("executing.run_file", RUN),
    "watch": _entry("executing.watch", WATCH),
    "pause": _entry("controlling.pause", PAUSE),
    "resume": _entry("controlling.resume", RESUME),
    "stop": _entry("controlling.stop", STOP),
    "retry": _entry("controlling.retry", RETRY),
    "repair": _entry("controlling.repair", REPAIR),
    "approve-step": _entry("stepping.approve_step", APPROVE_STEP),
    "deny-step": _entry("stepping.deny_step", DENY_STEP),
    "reconcile": _entry("stepping.reconcile", RECONCILE),
    "queue": _entry("waiting.queue", QUEUE),
    "processes": _entry("waiting.processes", "List the programs that live steps started and that keep running."),
    "stop-process": _entry("waiting.stop_process", "End a program that a live step started, and all that it started."),
    "feedback": _entry("learning.feedback", "Say what you think of a mission's result."),
    "signals": _entry("learning.signals", SIGNALS, RATES),
    "events": _entry("proving.events", "Print a mission's events so far."),
    "trace": _entry("proving.trace_mission", "Print the chain of ids and digests from message to receipt."),
    "verify": _entry("proving.verify", "Prove a mission from its bundle: signatures, decision, logs, state."),
    "export": _entry("proving.export", "Print the whole event log as JSON lines, or write a mission's bundle."),
    "replay": _entry("proving.replay", "Rebuild the state from the log and compare it."),
    "caller": Group(
        help="Who may call the orchestrator, and what for: add, list, remove, certificate, init.",
        commands={
            "add": _entry("callers.add", "Add a caller with roles; with --token, show its token once."),
            "list": _entry("callers.list_callers", "List the callers and their roles."),
            "remove": _entry("callers.remove", "Remove a caller; its next call is refused."),
            "certificate": _entry("callers.certificate", "Issue a caller's certificate from this state's authority."),
            "init": _entry("callers.init", "Write a list with one caller of all roles, where there is none."),
        },
    ),
    "trust": Group(
        help="The executor's trust file, on its own host: show, check, add, revoke.",
        commands={
            "show": _entry("trusting.show", "Say who may do what, and what the rules ask for."),
            "check": _entry("trusting.check", "Say whether a file would be taken, and what it would change."),
            "add": _entry("trusting.add", "Add a key, and the person or agent where they are new."),
            "revoke": _entry("trusting.revoke", "Take out a key, or somebody with all their keys."),
        },
    ),
    "policy": Group(
        help="Who must approve: explain, test.",
        commands={
            "explain": _entry("policies.explain", "Say who must approve a mission, who has, who still may, and why."),
            "test": _entry("policies.test", "Run a table of cases against a policy.", CASES),
        },
    ),
    "help": _entry("helping.help_topic", "Show a topic: exit-codes."),
}

OutputOption = Annotated[
    Format | None,
    typer.Option(
        "-o", "--output", callback=set_output, expose_value=False, help="Form of the data: table, json, ndjson."
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        callback=set_token_file,
        expose_value=False,
        metavar="FILE",
        help="A file with the token to call with; else GONOGO_TOKEN, else the state's certificate.",
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state", callback=set_state, expose_value=False, metavar="DIR", help="State directory (GONOGO_STATE)."
    ),
]


class CommandTable(TyperGroup):
    """Finds commands in the table and imports only the one that is used."""

    _listing = False
    table: Mapping[str, Entry | Group] = COMMANDS

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is the library's
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ARG002 - the signature is the library's
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, short_help=entry.help)
        if isinstance(entry, Group):
            group = CommandTable(name=cmd_name, help=entry.help, no_args_is_help=True, rich_markup_mode=None)
            group.table = entry.commands
            group.params += _session_options()
            return group
        function = getattr(import_module(f"client.commands.{entry.module}"), entry.function)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        # The mark keeps the lines of what follows as they are.
        text = f"{entry.help}\n\n\b\n{entry.form}" if entry.form else entry.help
        single.command(cmd_name, help=text)(function)
        command = get_command(single)
        command.params += _session_options()
        return command if isinstance(command, TyperCommand) else None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        super().format_help(ctx, formatter)


app = typer.Typer(
    cls=CommandTable,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 waiting for a person, 4 rejected or expired, "
    "5 drift or divergence, 6 failed or rolled back, 7 not permitted, 8 already executed. More: gonogo help exit-codes",
)


@app.callback()
def session_callback(
    context: typer.Context, _output: OutputOption = None, _state: StateOption = None, _token: TokenOption = None
) -> None:
    """Nothing happens until a person says go; then exactly what that person saw happens, once, or nothing does."""
    if context.obj is None:
        context.obj = new_session()


def _session_options() -> list[Any]:
    def options(_output: OutputOption = None, _state: StateOption = None, _token: TokenOption = None) -> None:
        """Carry the options that every command has."""

    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.command()(options)
    return [param for param in get_command(holder).params if param.name != "help"]
