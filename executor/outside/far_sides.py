"""Everything outside of the workspace, behind one port: a table says who handles which kind of step.

A handler refuses by raising while nothing has been sent. Where `perform` meets what it did not foresee, nobody knows
how far it came, so that is an unknown effect, whatever raised it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

from executor.domain.errors import ExecutorError, Fault, StepBlockedError
from executor.domain.plan import KINDS, FetchUrl, Live, SearchBodies
from executor.domain.receipt import EffectState
from executor.domain.report import FetchEvidence, SearchEvidence
from executor.runner.outside import Declared, Performed, Setting
from executor.runner.redacted import redacted, redacted_error
from executor.workspace.objects import Batch

Handled = TypeVar("Handled", contravariant=True)  # noqa: PLC0105 - it is no word of the contract
UNKNOWN_REMEDY: Final = "look at the far side, then say what happened: gonogo reconcile MISSION STEP"
NOT_REACHED_REMEDY: Final = "see that the far side can be reached, then gonogo retry MISSION"

log = logging.getLogger(__name__)


class LiveHandler(Protocol[Handled]):
    """Handles one kind of live step."""

    def declare(self, action: Handled, setting: Setting) -> Declared:
        """As `executor.runner.outside.FarSides.declare`."""
        ...

    def perform(self, action: Handled, expected: Declared, setting: Setting, key: str) -> Performed:
        """As `executor.runner.outside.FarSides.perform`.

        Raises:
            ExecutorError: it could not even begin; nothing was sent.
        """
        ...


class Fetching(Protocol):
    """Reads pages."""

    def fetch(self, action: FetchUrl, setting: Setting, batch: Batch) -> FetchEvidence:
        """As `executor.runner.outside.FarSides.fetch`."""
        ...


class Searching(Protocol):
    """Searches the texts of kept pages."""

    def search(self, action: SearchBodies, setting: Setting) -> SearchEvidence:
        """As `executor.runner.outside.FarSides.search`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideWorld:
    """The port `executor.runner.outside.FarSides`."""

    fetching: Fetching
    searching: Searching
    handlers: Mapping[type[Live], LiveHandler[Any]]
    """By kind of live step; what is not here is refused."""

    def fetch(self, action: FetchUrl, setting: Setting, batch: Batch) -> FetchEvidence:
        """Read a page."""
        try:
            return self.fetching.fetch(action, setting, batch)
        except ExecutorError as error:
            raise redacted_error(error, setting.redactor) from None

    def search(self, action: SearchBodies, setting: Setting) -> SearchEvidence:
        """Search the kept texts."""
        return self.searching.search(action, setting)

    def declare(self, action: Live, setting: Setting) -> Declared:
        """Say what a live step will do."""
        try:
            return self._handler(action).declare(action, setting)
        except ExecutorError as error:
            raise redacted_error(error, setting.redactor) from None

    def perform(self, action: Live, expected: Declared, setting: Setting, key: str) -> Performed:
        """Do it, once; nothing that goes wrong is raised."""
        try:
            performed = self._handler(action).perform(action, expected, setting, key)
        except ExecutorError as error:
            performed = not_done(_not_reached(error.fault))
        except Exception:  # how far it came nobody knows
            log.exception("a step of the kind %s broke off", KINDS[type(action)])
            performed = unknown("the executor lost sight of it")
        return _told(performed, setting)

    def _handler(self, action: Live) -> LiveHandler[Any]:
        handler = self.handlers.get(type(action))
        if handler is None:
            raise StepBlockedError(
                "UNSUPPORTED",
                f"this executor runs no steps of the kind {KINDS[type(action)]}",
                "leave the step out, or ask the executor's operator",
            )
        return handler


def not_done(fault: Fault) -> Performed:
    """Return that nothing was sent or begun, and why."""
    return Performed(state=EffectState.NOT_DONE, summary=fault.message, fault=fault)


def _not_reached(fault: Fault) -> Fault:
    """Say of a far side that was not reached what that is to an effect: it did not happen, and may be tried again."""
    if fault.reason != "FETCH_FAILED":
        return fault
    return Fault(reason="EFFECT_FAILED", message=f"it did not happen: {fault.message}", remedy=NOT_REACHED_REMEDY)


def unknown(what: str) -> Performed:
    """Return that the effect may have happened, and what hides it."""
    fault = Fault(reason="EFFECT_UNKNOWN", message=f"{what}; its effect may have happened", remedy=UNKNOWN_REMEDY)
    return Performed(state=EffectState.UNKNOWN, summary=fault.message, fault=fault)


def _told(performed: Performed, setting: Setting) -> Performed:
    fault = None if performed.fault is None else redacted(performed.fault, setting.redactor)
    return replace(performed, summary=setting.redactor.text(performed.summary), fault=fault)
