from pathlib import Path
from typing import Annotated

import typer

from client.approving import ApprovalOptions, this_terminal
from client.commands.arguments import ExecutorKeyOption, KeyOption, MissionArgument, connect
from client.commands.controlling import show_controlled
from client.commands.deciding import WhyOption
from client.durations import parse_duration
from client.errors import ClientError
from client.session import Session, run, session_of
from client.waiting_steps import approve_step as sign_approval
from client.waiting_steps import deny_step as sign_denial
from client.waiting_steps import reconcile_step

StepArgument = Annotated[str, typer.Argument(metavar="STEP", help="The step's id, as gonogo show tells it.")]
AsOption = Annotated[str, typer.Option("--as", metavar="PERSON", help="Refuse unless the key is this person's.")]
LifetimeOption = Annotated[str, typer.Option(metavar="TIME", help="How long it holds: 90s, 15m, 1h, 2d.")]


def approve_step(
    context: typer.Context,
    mission: MissionArgument,
    step: StepArgument,
    key: KeyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; everything else is checked and shown alike.")] = False,
    message: WhyOption = "",
    expires_in: LifetimeOption = "1h",
    person: AsOption = "",
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Verify the step that waits, show it, and sign that it may be committed."""
    session = session_of(context)
    options = _options(session, key, message, expires_in, person, yes=yes)

    async def approved() -> None:
        async with connect(session, executor_key) as client:
            now = await sign_approval(session, client, mission, step, options, this_terminal())
        show_controlled(session, now)

    run(approved())


def deny_step(
    context: typer.Context,
    mission: MissionArgument,
    step: StepArgument,
    key: KeyOption = None,
    message: WhyOption = "",
    expires_in: LifetimeOption = "1h",
    person: AsOption = "",
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Sign that the step that waits may not be committed."""
    session = session_of(context)
    options = _options(session, key, message, expires_in, person, yes=True)

    async def denied() -> None:
        async with connect(session, executor_key) as client:
            now = await sign_denial(session, client, mission, step, options)
        show_controlled(session, now)

    run(denied())


def reconcile(
    context: typer.Context,
    mission: MissionArgument,
    step: StepArgument,
    happened: Annotated[bool, typer.Option("--happened", help="The effect happened: the step is done.")] = False,
    did_not: Annotated[bool, typer.Option("--did-not", help="It did not happen: the step can be tried again.")] = False,
    key: KeyOption = None,
    message: WhyOption = "",
    person: AsOption = "",
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Sign whether the effect of a step happened."""
    if happened == did_not:
        raise ClientError("USAGE", "say whether the effect happened", "give one of --happened and --did-not")
    session = session_of(context)
    options = _options(session, key, message, "1h", person, yes=True)

    async def reconciled() -> None:
        async with connect(session, executor_key) as client:
            now = await reconcile_step(session, client, mission, step, options, happened=happened)
        show_controlled(session, now)

    run(reconciled())


def _options(
    session: Session, key: Path | None, comment: str, expires_in: str, person: str, *, yes: bool
) -> ApprovalOptions:
    return ApprovalOptions(
        key=key.expanduser() if key else session.state.approver_key,
        yes=yes,
        comment=comment,
        lifetime=parse_duration(expires_in),
        person=person,
    )
