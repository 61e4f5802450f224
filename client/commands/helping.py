from typing import Annotated

import typer

from client.errors import ClientError
from client.exit_codes import table_text
from client.session import session_of

TOPICS = {"exit-codes": table_text}


def help_topic(
    context: typer.Context, topic: Annotated[str, typer.Argument(help="The topic: exit-codes.")] = "exit-codes"
) -> None:
    """Show a topic."""
    text = TOPICS.get(topic)
    if text is None:
        raise ClientError("USAGE", f"there is no topic {topic!r}", f"topics: {', '.join(TOPICS)}")
    session_of(context).output.emit({"topic": topic, "text": text()}, text)
