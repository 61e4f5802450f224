"""Reading JUnit files: case by case, and never by what the file says of itself."""

import pytest

from executor.domain.errors import StepFailedError
from executor.domain.report import TestCase, TestCaseStatus
from executor.steps.junit import MAX_CASES, read_junit

MIXED = b"""<testsuites tests="99">
  <testsuite name="outer">
    <testcase classname="shop.cart" name="adds"/>
    <testsuite name="inner">
      <testcase classname="shop.cart" name="totals"><failure message="1 != 2">assert 1 == 2</failure></testcase>
      <testcase name="loads"><error message="no such file"/><failure message="late"/></testcase>
      <testcase classname="shop" name="pays"><skipped/></testcase>
    </testsuite>
  </testsuite>
</testsuites>"""


def test_each_case_is_told_with_how_it_ended_and_what_went_wrong_first() -> None:
    """Cases that did not pass come first, with the runner's own words."""
    found = read_junit(MIXED)

    assert (found.tests, found.failures, found.errors, found.skipped) == (4, 1, 1, 1)
    assert found.cases == (
        TestCase(name="shop.cart::totals", status=TestCaseStatus.FAILED, message="1 != 2\nassert 1 == 2"),
        TestCase(name="loads", status=TestCaseStatus.BROKEN, message="no such file\nlate"),
        TestCase(name="shop.cart::adds", status=TestCaseStatus.PASSED),
        TestCase(name="shop::pays", status=TestCaseStatus.SKIPPED),
    )


def test_of_very_many_cases_the_first_bad_ones_are_kept_and_all_are_counted() -> None:
    """A failure behind a thousand passed cases is not lost."""
    passed = b'<testcase name="fine"/>' * 1000
    found = read_junit(b"<testsuite>" + passed + b'<testcase name="last"><failure/></testcase></testsuite>')

    assert found.tests == 1001
    assert len(found.cases) == MAX_CASES
    assert found.cases[0].name == "last"


def test_suites_nested_a_thousand_deep_are_read() -> None:
    """No recursion follows the file."""
    deep = b"<testsuite>" * 1000 + b'<testcase name="down here"/>' + b"</testsuite>" * 1000

    assert read_junit(deep).tests == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not xml",
        b"<html/>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><testsuite><testcase name="&b;"/></testsuite>',
        b"<testsuite><testcase>",
    ],
)
def test_what_is_no_junit_file_fails_the_step_with_a_remedy(data: bytes) -> None:
    """It is said, and nothing is guessed."""
    with pytest.raises(StepFailedError) as caught:
        read_junit(data)

    assert caught.value.fault.reason == "JUNIT_UNREADABLE"
    assert "pytest --junitxml" in caught.value.fault.remedy
