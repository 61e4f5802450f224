"""Reading the JUnit XML file of a test run. The file comes from the sandbox and is not trusted."""

from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from executor.domain.errors import StepFailedError

REMEDY = "let the test runner write JUnit XML to the file that the step names, such as pytest --junitxml=FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCounts:
    """Test cases by how they ended; a case that both failed and broke counts as broken."""

    __test__ = False  # not a test class, whatever its name says to pytest

    tests: int
    failures: int
    errors: int
    skipped: int


def read_junit(data: bytes) -> TestCounts:
    """Count the test cases of a JUnit file.

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
    return _count(list(root.iter("testcase")))


def _count(cases: list[Element]) -> TestCounts:
    errors = sum(case.find("error") is not None for case in cases)
    failures = sum(case.find("failure") is not None and case.find("error") is None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    return TestCounts(tests=len(cases), failures=failures, errors=errors, skipped=skipped)
