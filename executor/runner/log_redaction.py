"""Keeps secrets out of the service's own log: whatever any part of it, or a library, has to say."""

import logging
from collections.abc import Callable

from executor.domain.redaction import Redactor


class RedactingFilter(logging.Filter):
    """Takes secrets out of a record's message and trace; put on handlers, it sees every logger's records."""

    def __init__(self, redactor: Callable[[], Redactor]) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact; let every record pass."""
        redactor = self._redactor()
        if not redactor:
            return True
        record.msg, record.args = redactor.text(record.getMessage()), None
        if record.exc_info:
            trace = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_text = redactor.text(trace)
        if record.stack_info:
            record.stack_info = redactor.text(record.stack_info)
        return True


def keep_out_of_log(redactor: Callable[[], Redactor]) -> Callable[[], None]:
    """Have every handler of the process redact from now on; returns how to end that."""
    keeping = RedactingFilter(redactor)
    handlers = tuple(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(keeping)

    def end() -> None:
        for handler in handlers:
            handler.removeFilter(keeping)

    return end
