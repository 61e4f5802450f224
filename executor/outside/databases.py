"""Steps that run one statement on a database that the trust file names.

A dry run tries what can be tried, in a transaction that is rolled back, and says which rows change. The execution tries
it again and commits only where the same rows change in the same way. What can not be tried is said to be so, with the
reason, and run once after approval.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from executor.domain.errors import ExecutorError, Fault, StepBlockedError, StepFailedError
from executor.domain.far_sides import Database, Engine
from executor.domain.plan import RunSql
from executor.domain.policy import Trust
from executor.domain.receipt import EffectState
from executor.domain.report import SqlEvidence, SqlRow
from executor.outside.answers import canonical, told
from executor.outside.far_sides import not_done, unknown
from executor.outside.listed import check_installed, named, remarks, secret_text
from executor.outside.worker import Confinement, View, Worker, WorkerGoneError
from executor.runner.outside import Declared, Performed, Setting
from executor.runner.secrets import Secrets
from gonogo.digests import digest
from gonogo.safe_text import excerpt, safe_line
from gonogo.secret_shapes import REFERENCE

MODULE: Final = "executor.outside.sql_worker"
SHOWN_ROWS: Final = 20
SHOWN_CHARACTERS: Final = 4096
SHOWN_VALUE: Final = 100
_CONNECT_SECONDS: Final = 10
_STATEMENTS: Final = 3
"""How many of a step's statements may each take their full time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Handles steps of the kind `run_sql`."""

    trust: Callable[[], Trust]
    secrets: Secrets
    confinement: Confinement | None
    """None where bubblewrap does not work."""
    forbidden: Sequence[Path]
    """Where no database's file may lie: the workspaces, and what is the executor's own."""

    def declare(self, action: RunSql, setting: Setting) -> Declared:
        """Try the statement where it can be tried; nothing lasts.

        Raises:
            StepBlockedError: no such database for this workspace, a file that is none, or a secret that is not there.
            StepFailedError: PLAN_INVALID for what is not one statement; EFFECT_FAILED where the database refuses it;
                FETCH_FAILED where it can not be reached.
        """
        database = self._database(action, setting)
        with self._worker(database, setting) as worker:
            found = _asked(worker, self._question(database, action, setting, simulate=True), database, setting)
        evidence = _evidence(database, found, setting)
        return Declared(
            evidence=evidence,
            not_simulated=evidence.not_simulated,
            digest=digest(canonical([action.database, action.statement, action.parameters, evidence.rows_digest])),
        )

    def perform(self, action: RunSql, expected: Declared, setting: Setting, _key: str) -> Performed:
        """Try it again, and commit where the report says the same; or run it, where nobody could try it.

        Raises:
            ExecutorError: it did not come to that.
        """
        evidence = expected.evidence
        if not isinstance(evidence, SqlEvidence):
            return not_done(_diverged("the report says nothing of a statement"))
        database = self._database(action, setting)
        committing = False
        with self._worker(database, setting) as worker:
            try:
                question = self._question(database, action, setting, simulate=evidence.simulated)
                found = _asked(worker, question, database, setting)
                difference = _difference(evidence, found, setting) if evidence.simulated else ""
                if difference:
                    return not_done(_diverged(difference))
                committing = True
                return _performed(database, found, worker.ask({"go": True}), setting)
            except WorkerGoneError as error:
                if committing:
                    return unknown(f"the statement on {database.name} broke off: {error}")
                raise _no_answer(database, str(error), worker, setting) from None

    def _database(self, action: RunSql, setting: Setting) -> Database:
        database = named(self.trust().databases, action.database, "database", setting)
        if any(REFERENCE in text for text in (action.statement, *action.parameters)):
            raise StepFailedError(
                "PLAN_INVALID",
                "a statement names a secret, and its rows would show it",
                "keep secrets out of statements and their parameters",
            )
        check_installed("sqlglot")
        if database.engine is Engine.SQLITE:
            self._check_file(database)
        else:
            check_installed("psycopg")
        return database

    def _check_file(self, database: Database) -> None:
        path = Path(database.path)
        resolved = path.resolve()
        if resolved != path or not path.is_file():
            raise StepBlockedError(
                "FAR_SIDE_UNKNOWN",
                f"the file of database {database.name} is not there, or is reached through a link",
                "have the executor's operator write the file's own path into the trust file",
            )
        if any(resolved.is_relative_to(place.resolve()) for place in self.forbidden):
            raise StepBlockedError(
                "FAR_SIDE_UNKNOWN",
                f"the file of database {database.name} lies in a workspace, or with the executor's own files",
                "have the executor's operator move it; a live step changes nothing in a workspace",
            )

    @contextmanager
    def _worker(self, database: Database, setting: Setting) -> Iterator[Worker]:
        seconds = min(
            database.statement_timeout_seconds * _STATEMENTS + _CONNECT_SECONDS,
            setting.plan.scope.max_duration_seconds,
        )
        with Worker(
            MODULE, seconds=seconds, cancel=setting.cancel, view=_view(database), confinement=self.confinement
        ) as worker:
            yield worker

    def _question(self, database: Database, action: RunSql, setting: Setting, *, simulate: bool) -> Mapping[str, Any]:
        password = secret_text(self.secrets, database.password, setting) if database.password else ""
        return {
            "engine": database.engine.value,
            "dsn": database.dsn,
            "password": password,
            "path": database.path,
            "seconds": min(database.statement_timeout_seconds, setting.plan.scope.max_duration_seconds),
            "max_rows": database.max_rows,
            "statement": action.statement,
            "parameters": [_parameter(text) for text in action.parameters],
            "simulate": simulate,
        }


def _view(database: Database) -> View:
    """Let the child see the one file with what SQLite keeps beside it, or a server's socket and certificates."""
    if database.engine is Engine.SQLITE:
        return View(writable=(str(Path(database.path).parent),), offline=True)
    words = dict(word.split("=", 1) for word in database.dsn.split())
    places = [words.get(name, "") for name in ("host", "sslrootcert", "sslcert", "sslkey")]
    readable = tuple(place for place in places if place.startswith("/"))
    return View(readable=readable, offline=words["host"].startswith("/"))


def _parameter(text: str) -> str | int | float | bool | None:
    """Read one parameter: a JSON value that is one value. A number with a fraction stays the text that it is.

    Raises:
        StepFailedError: PLAN_INVALID: it is none.
    """
    try:
        value = json.loads(text, parse_float=str)
    except (ValueError, RecursionError):
        value = {}
    if isinstance(value, dict | list):
        raise StepFailedError(
            "PLAN_INVALID",
            "a parameter is no single JSON value",
            'write text as "\\"text\\"", numbers, true, false or null; a whole JSON document as text',
        )
    found: str | int | bool | None = value
    return found


def _asked(worker: Worker, question: Mapping[str, Any], database: Database, setting: Setting) -> Mapping[str, Any]:
    try:
        found = worker.ask(question)
    except WorkerGoneError as error:
        raise _no_answer(database, str(error), worker, setting) from None
    fault = found.get("fault")
    if fault is not None:
        message = f"database {database.name}: {safe_line(str(fault['message']))}"
        raise StepFailedError(fault["reason"], message, fault["remedy"])
    return found


def _evidence(database: Database, found: Mapping[str, Any], setting: Setting) -> SqlEvidence:
    redactor = setting.redactor
    simulated = bool(found["simulated"])
    rows = sorted((redactor.text(before), redactor.text(after)) for before, after in found.get("rows", ()))
    return SqlEvidence(
        database=database.name,
        engine=database.engine.value,
        statement_kind=str(found["kind"]),
        simulated=simulated,
        not_simulated=redactor.text(safe_line(str(found["reason"]))),
        table=str(found["table"]),
        row_count=len(rows),
        rows_digest=digest(canonical(rows)) if simulated else "",
        rows=tuple(SqlRow(before=_shown(before), after=_shown(after)) for before, after in rows[:SHOWN_ROWS]),
    )


def _shown(row: str) -> str:
    """Return a row as it is shown; of one that is very long, the beginnings of its values. The digest is of all."""
    if len(row) <= SHOWN_CHARACTERS:
        return row
    found = {name: excerpt(str(value), SHOWN_VALUE) for name, value in json.loads(row, parse_float=str).items()}
    short = canonical(found).decode()
    return short if len(short) <= SHOWN_CHARACTERS else canonical({"": f"a row of {len(row)} characters"}).decode()


def _difference(expected: SqlEvidence, found: Mapping[str, Any], setting: Setting) -> str:
    """Say how what the statement would do now differs from what was approved; empty where it does not."""
    if not found["simulated"]:
        return f"it can no longer be seen what it changes: {safe_line(str(found['reason']))}"
    rows = sorted((setting.redactor.text(before), setting.redactor.text(after)) for before, after in found["rows"])
    if len(rows) != expected.row_count:
        return f"it is about {len(rows)} rows now, and was about {expected.row_count}"
    if digest(canonical(rows)) != expected.rows_digest or found["kind"] != expected.statement_kind:
        return "other rows change now, or change in another way"
    return ""


def _diverged(difference: str) -> Fault:
    return Fault(
        reason="ROWS_DIVERGED",
        message=f"the statement would not do what the report says: {difference}",
        remedy="look at the rows as they are now, and give a repair plan: gonogo repair MISSION -f FILE",
    )


def _no_answer(database: Database, why: str, worker: Worker, setting: Setting) -> ExecutorError:
    said = remarks(worker.remarks, setting.redactor)
    return StepFailedError(
        "FETCH_FAILED", f"database {database.name} gave no answer: {why}{said}", f"look at {database.name}"
    )


def _performed(database: Database, found: Mapping[str, Any], answer: Mapping[str, Any], setting: Setting) -> Performed:
    if "unknown" in answer:
        return unknown(f"database {database.name}: {safe_line(str(answer['unknown']))}")
    if "refused" in answer:
        message = f"database {database.name} refused, and nothing lasts: {safe_line(str(answer['refused']))}"
        return not_done(
            Fault(
                reason="EFFECT_FAILED",
                message=message,
                remedy="correct it in a repair plan: gonogo repair MISSION -f FILE",
            )
        )
    done = answer["done"]
    rows = done.get("rows")
    if rows is None and found["simulated"]:
        return Performed(state=EffectState.DONE, summary=f"{found['kind']}: {len(found['rows'])} rows, as reported")
    if rows is None:
        return Performed(state=EffectState.DONE, summary=f"{found['kind']}: {done.get('count', 0)} rows")
    excerpted, whole = told("\n".join(rows).encode("utf-8", "replace"), setting.redactor)
    summary = f"{found['kind']}: {len(rows)} rows"
    return Performed(state=EffectState.DONE, summary=summary, answer=excerpted, answer_digest=whole)
