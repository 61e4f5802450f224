"""What the runner needs of everything outside of the workspace: pages, requests, programs, tools and databases.

A dry run has a live step *declared*: checked against scope, policy and trust file, described, and where it can be
simulated, simulated. An execution has it *performed*, once, after the ledger holds a row for it. Calls are synchronous,
made from worker threads, and end soon after `Setting.cancel` was requested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from executor.domain.cancel import NEVER, Cancel
from executor.domain.errors import Fault, StepBlockedError
from executor.domain.plan import KINDS, Action, FetchUrl, Live, Plan, SearchBodies
from executor.domain.receipt import EffectState
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import Excerpt, FetchEvidence, LiveEvidence, SearchEvidence, SqlEvidence, ToolEvidence
from executor.workspace.objects import Batch, Objects
from executor.workspace.workspace import Workspace


def no_output(_stream: str, _data: bytes) -> None:
    """Take what a program writes, and forget it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and for whom a step is run."""

    plan: Plan
    step_id: str
    workspace: Workspace
    execution_id: str = ""
    """Empty in a dry run."""
    redactor: Redactor = NO_SECRETS
    on_output: Callable[[str, bytes], None] = no_output
    """Takes "stdout" or "stderr" and what was written, as it comes, not yet redacted."""
    cancel: Cancel = NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a dry run says of a live step."""

    evidence: LiveEvidence | ToolEvidence | SqlEvidence
    not_simulated: str
    """Why nobody has seen what it comes to; empty where it was simulated."""
    digest: str
    """Over everything that will be sent or run, secrets by reference: what a step's own approval names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """What came of a live step. Texts are redacted."""

    state: EffectState
    """DONE, NOT_DONE or UNKNOWN; whatever is not certain is UNKNOWN."""
    summary: str
    answer: Excerpt | None = None
    answer_digest: str = ""
    fault: Fault | None = None
    """Why it is no success. An effect that is DONE may have one: the far side did it and said that it is not well."""


def kept(expected: FetchEvidence, objects: Objects) -> bool:
    """Tell whether what a dry run read is here still, so that an execution need not ask the far side again."""
    digests = tuple(one for one in (expected.digest, expected.text_digest) if one)
    return expected.fetched and all(objects.has(one) for one in digests)


class FarSides(Protocol):
    """Everything outside of the workspace that steps may reach."""

    def fetch(self, action: FetchUrl, setting: Setting, batch: Batch) -> FetchEvidence:
        """Read a page and keep its body in the batch.

        In a dry run that may not reach the address yet, though an execution may, nothing is read, and the evidence
        says so.

        Raises:
            StepBlockedError: scope or policy does not allow it (NETWORK_REFUSED), or it needs what is not installed.
            StepFailedError: the far side did not answer as it should (FETCH_FAILED, TOO_LARGE).
        """
        ...

    def search(self, action: SearchBodies, setting: Setting) -> SearchEvidence:
        """Search the texts of pages that were kept for the workspace.

        Raises:
            StepFailedError: the query can not be read (PLAN_INVALID).
        """
        ...

    def declare(self, action: Live, setting: Setting) -> Declared:
        """Check a live step and say what it will do; nothing outside changes.

        Raises:
            StepBlockedError: scope, policy or trust file does not allow it.
            StepFailedError: it could not be asked, or its simulation failed.
        """
        ...

    def perform(self, action: Live, expected: Declared, setting: Setting, key: str) -> Performed:
        """Do it, once. It raises nothing for what goes wrong: what is not certain is an UNKNOWN effect.

        Args:
            action: what to do.
            expected: what the report holds of it; where the far side has changed since, nothing is done.
            setting: where.
            key: for the far side to recognise a repetition by.
        """
        ...


class NothingOutside:
    """The port where nothing outside of the workspace can be reached: every step that would is refused."""

    def fetch(self, action: FetchUrl, _setting: Setting, _batch: Batch) -> FetchEvidence:
        raise _unreachable(action)

    def search(self, action: SearchBodies, _setting: Setting) -> SearchEvidence:
        raise _unreachable(action)

    def declare(self, action: Live, _setting: Setting) -> Declared:
        raise _unreachable(action)

    def perform(self, action: Live, _expected: Declared, _setting: Setting, _key: str) -> Performed:
        fault = _unreachable(action).fault
        return Performed(state=EffectState.NOT_DONE, summary=fault.message, fault=fault)


def _unreachable(action: Action) -> StepBlockedError:
    return StepBlockedError(
        "UNSUPPORTED",
        f"this executor reaches nothing outside of its workspaces, as a step of the kind {KINDS[type(action)]} would",
        "leave the step out of the plan",
    )


NOTHING_OUTSIDE: Final = NothingOutside()
