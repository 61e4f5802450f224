"""Sealed documents opened once: the same bytes are not parsed again between a dry run and its execution."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from executor.domain.approval import Approval
from executor.domain.control import Reconciliation, StepApproval
from executor.domain.plan import Plan
from executor.domain.report import Report
from executor.domain.sealed import SealedBytes
from executor.runner.ports import Documents

CAPACITY = 256
LARGEST_BODY = 1024 * 1024
TOTAL_BYTES = 8 * 1024 * 1024
"""Of the bodies; what was read of them takes some times as much."""

T = TypeVar("T")


class _Recent(Generic[T]):
    """The most recently used values by digest; bounded in number and bytes, and large documents are left out."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, digest: str) -> T | None:
        with self._lock:
            found = self._values.get(digest)
            if found is None:
                return None
            self._values.move_to_end(digest)
            return found[0]

    def put(self, sealed: SealedBytes, value: T) -> None:
        size = len(sealed.body)
        if size > LARGEST_BODY:
            return
        with self._lock:
            _, before = self._values.pop(sealed.digest, (None, 0))
            self._values[sealed.digest] = (value, size)
            self._bytes += size - before
            while len(self._values) > CAPACITY or self._bytes > TOTAL_BYTES:
                _, (_, gone) = self._values.popitem(last=False)
                self._bytes -= gone


class OpenDocuments:
    """Opens documents strictly and remembers them by the digest of the very bytes that were carried."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._plans: _Recent[Plan] = _Recent()
        self._reports: _Recent[Report] = _Recent()

    def plan(self, sealed: SealedBytes) -> Plan:
        """Open a plan; raises RequestMalformedError."""
        plan = self._plans.get(sealed.digest)
        if plan is None:
            plan = self._documents.open_plan(sealed.body)
            self._plans.put(sealed, plan)
        return plan

    def report(self, sealed: SealedBytes) -> Report:
        """Open a report that this executor issued."""
        report = self._reports.get(sealed.digest)
        if report is None:
            report = self._documents.open_report(sealed.body)
            self._reports.put(sealed, report)
        return report

    def issued(self, sealed: SealedBytes, report: Report) -> None:
        """Remember the report that was just sealed into these bytes."""
        self._reports.put(sealed, report)

    def approval(self, sealed: SealedBytes) -> Approval:
        """Open an approval whose signature was verified; raises RequestMalformedError."""
        return self._documents.open_approval(sealed.body)

    def step_approval(self, sealed: SealedBytes) -> StepApproval:
        """Open a step's approval whose signature was verified; raises RequestMalformedError."""
        return self._documents.open_step_approval(sealed.body)

    def reconciliation(self, sealed: SealedBytes) -> Reconciliation:
        """Open a word on an effect whose signature was verified; raises RequestMalformedError."""
        return self._documents.open_reconciliation(sealed.body)
