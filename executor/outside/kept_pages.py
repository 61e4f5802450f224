"""The pages that reports name and whose texts are here still: what a lost index is filled from."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, Protocol

from executor.domain.errors import ExecutorError, NotFoundError
from executor.domain.report import FetchEvidence, Report
from executor.outside.bodies import Page
from executor.outside.charsets import decoded
from executor.workspace.objects import Objects

REPORTS_AT_ONCE: Final = 100


class Reports(Protocol):
    """What the ledger tells of reports."""

    def reports_with_pages(self, after: int, limit: int) -> Sequence[tuple[int, bytes]]:
        """Return the next reports that may name a page, each with its number."""
        ...


class OpensReports(Protocol):
    """Reads sealed reports."""

    def open_report(self, body: bytes) -> Report: ...


def kept_pages(reports: Reports, documents: OpensReports, objects: Objects) -> Iterator[tuple[Page, bytes]]:
    """Yield each page with its text, as UTF-8."""
    after = 0
    while found := reports.reports_with_pages(after, REPORTS_AT_ONCE):
        after = found[-1][0]
        for _, body in found:
            with suppress(ExecutorError):  # a report of another release that can not be read any more
                yield from _of_report(documents.open_report(body), objects)


def _of_report(report: Report, objects: Objects) -> Iterator[tuple[Page, bytes]]:
    for step in report.steps:
        evidence = step.evidence
        if isinstance(evidence, FetchEvidence) and evidence.preview is not None:
            digest = evidence.text_digest or evidence.digest
            with suppress(NotFoundError):  # let go of since
                data = objects.read(digest, 0, objects.size(digest))
                page = Page(workspace_id=report.workspace_id, url=evidence.url, digest=digest)
                yield page, data if evidence.text_digest else decoded(data, evidence.content_type).encode()
