"""The checkpoints that ended executions have left, as rows of the SQLite ledger."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from executor.adapters.ledger_retention import Execute
from executor.runner.ports import Checkpoint

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Checkpoints(ABC):
    """The part of the SQLite ledger that knows what can be undone."""

    def checkpoints(self, mission_id: str) -> tuple[Checkpoint, ...]:
        return tuple(_checkpoint(*row) for row in self._rows("checkpoints_of_mission", mission_id))

    def checkpoints_before(
        self, moment: datetime, *, after: Checkpoint | None = None, limit: int = 100
    ) -> tuple[Checkpoint, ...]:
        place = (-1, "") if after is None else (_micros(after.kept_at), after.slot)
        return tuple(_checkpoint(*row) for row in self._rows("checkpoints_before", _micros(moment), *place, limit))

    def has_checkpoint(self, slot: str) -> bool:
        return bool(self._rows("has_checkpoint", slot))

    def forget_checkpoint(self, slot: str) -> None:
        with self._commit(0) as execute:
            execute("forget_checkpoint", slot)

    @abstractmethod
    def _commit(self, at: int) -> AbstractContextManager[Execute]: ...

    @abstractmethod
    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]: ...


def insert_checkpoint(execute: Execute, kept: Checkpoint) -> None:
    """Write one row in a transaction."""
    execute(
        "insert_checkpoint",
        kept.slot,
        kept.execution_id,
        kept.mission_id,
        kept.step_id,
        kept.workspace_id,
        _micros(kept.kept_at),
        kept.size,
        kept.record,
    )


def _checkpoint(
    slot: str, execution_id: str, mission_id: str, step_id: str, workspace_id: str, *rest: Any
) -> Checkpoint:
    kept_at_us, size, record = rest
    return Checkpoint(
        slot=slot,
        execution_id=execution_id,
        mission_id=mission_id,
        step_id=step_id,
        workspace_id=workspace_id,
        kept_at=_EPOCH + kept_at_us * _MICROSECOND,
        size=size,
        record=record,
    )


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
