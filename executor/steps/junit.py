"""Reading the JUnit XML file of a test run. The file comes from the sandbox and is not trusted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import ParseError

import junitparser
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from executor.domain.errors import StepFailedError
from executor.domain.report import TestCase, TestCaseStatus
from gonogo.safe_text import excerpt

REMEDY = "let the test runner write JUnit XML to the file that the step names, such as pytest --junitxml=FILE"
MAX_CASES: Final = 500
NAME_CHARACTERS: Final = 300
MESSAGE_CHARACTERS: Final = 500

# A case that both failed and broke counts as broken.
_RESULTS: Final = (
    (junitparser.Error, TestCaseStatus.BROKEN),
    (junitparser.Failure, TestCaseStatus.FAILED),
    (junitparser.Skipped, TestCaseStatus.SKIPPED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCounts:
    """Test cases by how they ended."""

    __test__ = False  # not a test class, whatever its name says to pytest

    tests: int
    failures: int
    errors: int
    skipped: int
    cases: tuple[TestCase, ...] = ()
    """Those that did not pass first, each group in the file's order; at most 500."""


def read_junit(data: bytes) -> TestCounts:
    """Read the test cases of a JUnit file.

    Counts the cases themselves and not the totals that the file states about itself.

    Raises:
        StepFailedError: not XML, XML that defends itself against reading, or not a JUnit file.
    """
    try:
        root = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise StepFailedError("JUNIT_UNREADABLE", f"the JUnit file is not readable XML: {error}", REMEDY) from None
    if root.tag not in {"testsuites", "testsuite"}:
        raise StepFailedError("JUNIT_UNREADABLE", f"the JUnit file holds a <{root.tag}>, not a <testsuites>", REMEDY)
    # The library's own walk goes as deep as suites are nested; this one does not.
    wrap = junitparser.TestCase.fromelem
    return _counted([_case(wrap(element)) for element in root.iter("testcase")])  # type: ignore[no-untyped-call]  # it has no types


def _counted(cases: list[TestCase]) -> TestCounts:
    by_status = {status: [case for case in cases if case.status is status] for status in TestCaseStatus}
    bad = (TestCaseStatus.BROKEN, TestCaseStatus.FAILED)
    first = [case for case in cases if case.status in bad]
    others = [case for case in cases if case.status not in bad]
    return TestCounts(
        tests=len(cases),
        failures=len(by_status[TestCaseStatus.FAILED]),
        errors=len(by_status[TestCaseStatus.BROKEN]),
        skipped=len(by_status[TestCaseStatus.SKIPPED]),
        cases=(*first, *others)[:MAX_CASES],
    )


def _case(case: junitparser.TestCase) -> TestCase:
    results = tuple(case.result)
    status = next((status for kind, status in _RESULTS if _has(results, kind)), TestCaseStatus.PASSED)
    name = "::".join(part for part in (case.classname, case.name) if part)
    return TestCase(
        name=excerpt(name, NAME_CHARACTERS),
        status=status,
        message=excerpt("\n".join(_words(results)), MESSAGE_CHARACTERS),
    )


def _has(results: Iterable[object], kind: type) -> bool:
    return any(isinstance(result, kind) for result in results)


def _words(results: Iterable[junitparser.junitparser.Result]) -> Iterator[str]:
    for result in results:
        said = (result.message or "", (result.text or "").strip())
        yield from (part for part in said if part)
