"""Where output goes and in which form: data to standard output, all else to standard error.

JSON is written in ASCII: a person who looks at it on a terminal sees every hidden character spelt out too.
"""

import enum
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from client.errors import ClientError, RemoteError
from client.exit_codes import for_error
from gonogo.safe_text import safe_block, safe_line


class Format(enum.StrEnum):
    """The form of the data."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One command's way out."""

    format: Format
    stdout: TextIO
    stderr: TextIO

    @property
    def machine(self) -> bool:
        """A program reads standard output."""
        return self.format is not Format.TABLE

    def emit(self, data: Mapping[str, object], table: Callable[[], str]) -> None:
        """Write one result: an object as JSON, or what `table` returns."""
        if self.machine:
            self._json(data)
        else:
            self.text(table())

    def emit_list(self, rows: Sequence[Mapping[str, object]], table: Callable[[], str]) -> None:
        """Write a list: an array, one object on each line, or what `table` returns."""
        if self.format is Format.NDJSON:
            for row in rows:
                self._json(row)
        elif self.format is Format.JSON:
            self._json(list(rows))
        else:
            self.text(table())

    def line(self, data: Mapping[str, object]) -> None:
        """Write one object on one line at once, whatever the format."""
        self._write(self.stdout, json.dumps(data))

    def text(self, text: str) -> None:
        """Write text that is safe to show already."""
        if text:
            self._write(self.stdout, text)

    def note(self, text: str) -> None:
        """Write to standard error, for a person; the text must be safe to show."""
        self._write(self.stderr, text)

    def aside(self, text: str) -> None:
        """Write to standard error what only a person misses: a program reads the data."""
        if not self.machine:
            self.note(text)

    def error(self, error: ClientError) -> None:
        """Write an error: one JSON object, or the message and the remedy."""
        paths = error.paths if isinstance(error, RemoteError) else ()
        if self.machine:
            body: dict[str, object] = {
                "code": int(for_error(error)),
                "reason": error.reason,
                "message": error.message,
                "remedy": error.remedy,
            }
            self._write(self.stderr, json.dumps({**body, "paths": paths} if paths else body))
            return
        self._write(self.stderr, f"error: {safe_block(error.message)} [{safe_line(error.reason)}]")
        for path in paths:
            self._write(self.stderr, f"  {safe_line(path)}")
        if error.remedy:
            self._write(self.stderr, f"remedy: {safe_block(error.remedy)}")

    def _json(self, data: object) -> None:
        indent = 2 if self.format is Format.JSON else None
        self._write(self.stdout, json.dumps(data, indent=indent))

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        stream.write(text + "\n")
        stream.flush()


def standard_output(form: Format) -> Output:
    """Return the way out of this process."""
    return Output(format=form, stdout=sys.stdout, stderr=sys.stderr)
