"""The `gonogo` command: runs one command and turns every end into an exit code."""

import os
import sys
from collections.abc import Sequence

# Both must be set before grpc is imported, which only the commands do.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import typer

from client.app import app
from client.errors import ClientError
from client.exit_codes import ExitCode, for_error
from client.output import Format, Output, standard_output
from client.session import OUTPUT_VARIABLE

DEBUG_VARIABLE = "GONOGO_DEBUG"
INTERRUPTED = 130
"""What the command line library makes of ctrl-C in a command."""


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; never raises."""
    output = standard_output(requested_format(arguments))
    try:
        result = app(list(arguments), standalone_mode=False, prog_name="gonogo")
    except ClientError as error:
        return _ended(output, error)
    except typer.TyperException as error:
        return _ended(output, _usage(error))
    except (typer.Abort, KeyboardInterrupt):
        return _ended(output, _interrupted())
    except BrokenPipeError:
        # Whoever read our output has gone; a second error while Python flushes would be noise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.ERROR
    except Exception as error:  # noqa: BLE001 - the border: a person gets a sentence, never a traceback
        return _ended(output, _unexpected(error))
    code = result if isinstance(result, int) else int(ExitCode.DONE)
    return code if code != INTERRUPTED else _ended(output, _interrupted())


def _interrupted() -> ClientError:
    return ClientError("INTERRUPTED", "interrupted", "what already runs goes on: gonogo list --status active shows it")


def requested_format(arguments: Sequence[str]) -> Format:
    """Return the form of output that a command line asks for, even one that is otherwise wrong."""
    found = os.environ.get(OUTPUT_VARIABLE, "")
    words = list(arguments)
    for position, word in enumerate(words):
        if word == "--":
            break
        if word in {"-o", "--output"} and position + 1 < len(words):
            found = words[position + 1]
        elif word.startswith("--output="):
            found = word.removeprefix("--output=")
        elif word.startswith("-o") and word != "-o":
            found = word.removeprefix("-o").removeprefix("=")
    return Format(found) if found in set(Format) else Format.TABLE


def _ended(output: Output, error: ClientError) -> int:
    output.error(error)
    return int(for_error(error))


def _usage(error: typer.TyperException) -> ClientError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "gonogo"
    if type(error).__name__ == "NoArgsIsHelpError":
        return ClientError("USAGE", "a command is missing", "gonogo --help lists them")
    return ClientError("USAGE", error.format_message(), f"{path} --help shows how it is used")


def _unexpected(error: Exception) -> ClientError:
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    message = f"{type(error).__name__}: {error}"
    return ClientError("INTERNAL", message, f"this is a defect; {DEBUG_VARIABLE}=1 shows where it happened")


if __name__ == "__main__":
    main()
