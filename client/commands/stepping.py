from typing import Annotated

import typer

from client.approving import this_terminal
from client.commands.arguments import (
    AsOption,
    ExecutorKeyOption,
    KeyOption,
    LifetimeOption,
    MissionArgument,
    WhyOption,
    YesOption,
    approval_options,
    connect,
)
from client.commands.controlling import show_controlled
from client.errors import ClientError
from client.session import run, session_of
from client.waiting_steps import approve_step as sign_approval
from client.waiting_steps import deny_step as sign_denial
from client.waiting_steps import reconcile_step

StepArgument = Annotated[str, typer.Argument(metavar="STEP", help="The step's id, as gonogo show tells it.")]


def approve_step(
    context: typer.Context,
    mission: MissionArgument,
    step: StepArgument,
    key: KeyOption = None,
    yes: YesOption = False,
    message: WhyOption = "",
    expires_in: LifetimeOption = "1h",
    person: AsOption = "",
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Verify the step that waits, show it, and sign that it may be committed."""
    session = session_of(context)
    options = approval_options(session, key, yes=yes, message=message, expires_in=expires_in, person=person)

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
    options = approval_options(session, key, yes=True, message=message, expires_in=expires_in, person=person)

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
    options = approval_options(session, key, yes=True, message=message, expires_in="1h", person=person)

    async def reconciled() -> None:
        async with connect(session, executor_key) as client:
            now = await reconcile_step(session, client, mission, step, options, happened=happened)
        show_controlled(session, now)

    run(reconciled())
