"""Excerpts and test cases, which reports and receipts both hold."""

from collections.abc import Iterable

from executor.adapters.wire_enums import TEST_CASES
from executor.adapters.wire_texts import number_from_text
from executor.domain.report import Excerpt, TestCase
from gonogo.v1 import evidence_pb2


def excerpt_to_proto(excerpt: Excerpt) -> evidence_pb2.Excerpt:
    """Map an excerpt."""
    return evidence_pb2.Excerpt(
        head=excerpt.head,
        tail=excerpt.tail,
        total_bytes=str(excerpt.total_bytes),
        digest=excerpt.digest,
        truncated=excerpt.truncated,
    )


def excerpt_from_proto(message: evidence_pb2.Excerpt) -> Excerpt:
    """Map an excerpt."""
    return Excerpt(
        head=message.head,
        tail=message.tail,
        total_bytes=number_from_text(message.total_bytes, "total_bytes"),
        digest=message.digest,
        truncated=message.truncated,
    )


def cases_to_proto(cases: Iterable[TestCase]) -> list[evidence_pb2.TestCase]:
    """Map the cases of a test run."""
    return [
        evidence_pb2.TestCase(name=case.name, status=TEST_CASES.to_wire(case.status), message=case.message)
        for case in cases
    ]


def cases_from_proto(messages: Iterable[evidence_pb2.TestCase]) -> tuple[TestCase, ...]:
    """Map the cases of a test run."""
    return tuple(
        TestCase(name=message.name, status=TEST_CASES.from_wire(message.status), message=message.message)
        for message in messages
    )
