"""Whatever is altered in a good request, nothing but an executor's error comes out, and nothing altered passes."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.domain.errors import ExecutorError
from executor.domain.gates import NamedIds
from executor.domain.sealed import SealedBytes, Signature
from gonogo import sealing
from tests.attacks.acceptance import Acceptance

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
MANY = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(["", "m-1", "i-m-1", "site", "other", "executor-test", "\x00"]))
KINDS = st.sampled_from(
    [
        *(sealing.PLAN, sealing.REPORT, sealing.APPROVAL, sealing.RECEIPT, sealing.REVOCATION),
        *(sealing.STEP_APPROVAL, sealing.RECONCILIATION, ""),
    ]
)


@pytest.fixture(scope="module")
def acceptance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acceptance]:
    """One executor for all examples; it executes none of them."""
    acceptance = Acceptance(tmp_path_factory.mktemp("acceptance"))
    yield acceptance
    acceptance.close()


@st.composite
def edited(draw: st.DrawFn, data: bytes) -> bytes:
    """The same bytes after one to four edits: a byte changed, dropped or put in, a piece doubled, moved or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        other = draw(st.integers(0, len(data)))
        byte = bytes([draw(st.integers(0, 255))])
        begin, end = min(place, other), max(place, other)
        kind = draw(st.sampled_from(["change", "drop", "insert", "double", "cut", "remove"]))
        data = {
            "change": data[:place] + byte + data[place + 1 :],
            "drop": data[:place] + data[place + 1 :],
            "insert": data[:place] + byte + data[place:],
            "double": data[:end] + data[begin:end][:4096] + data[end:],
            "cut": data[:place],
            "remove": data[:begin] + data[end:],
        }[kind]
    return data


@st.composite
def another(draw: st.DrawFn, document: SealedBytes) -> SealedBytes:
    """A document with something of its envelope or its body altered."""
    signatures = list(document.signatures)
    match draw(st.sampled_from(["body", "kind", "signature", "none", "more", "name"])):
        case "body":
            return dataclasses.replace(document, body=draw(edited(document.body)))
        case "kind":
            return dataclasses.replace(document, media_type=draw(KINDS))
        case "signature" if signatures:
            raw = draw(edited(signatures[0].signature))
            signatures[0] = dataclasses.replace(signatures[0], signature=raw, extra=draw(st.binary(max_size=2)))
        case "more":
            signatures += [Signature(key_id=draw(TEXTS), scheme=draw(TEXTS), signature=draw(st.binary(max_size=80)))]
        case "name" if signatures:
            signatures[0] = dataclasses.replace(signatures[0], key_id=draw(TEXTS), scheme=draw(TEXTS))
        case _:
            signatures = []
    return dataclasses.replace(document, signatures=tuple(signatures))


@MANY
@given(data=st.data())
def test_any_document_altered(acceptance: Acceptance, data: st.DataObject) -> None:
    """Plan, report and approval, their kinds, bodies and signatures: what is altered is refused, or says the same."""
    good = acceptance.good
    assert good.report is not None
    match data.draw(st.sampled_from(["plan", "report", "approval", "approvals"])):
        case "plan":
            altered = dataclasses.replace(good, plan=data.draw(another(good.plan)))
        case "report":
            altered = dataclasses.replace(good, report=data.draw(st.one_of(st.none(), another(good.report))))
        case "approval":
            altered = dataclasses.replace(good, approvals=(data.draw(another(good.approvals[0])),))
        case _:
            many = st.lists(st.one_of(st.just(good.approvals[0]), another(good.approvals[0])), max_size=18)
            altered = dataclasses.replace(good, approvals=tuple(data.draw(many)))
    acceptance.check(altered)


@MANY
@given(ids=st.builds(NamedIds, mission_id=TEXTS, intent_id=TEXTS, workspace_id=TEXTS, executor_id=TEXTS), name=TEXTS)
def test_any_ids(acceptance: Acceptance, ids: NamedIds, name: str) -> None:
    """A request is about what its documents are about, whatever it calls itself."""
    acceptance.check(dataclasses.replace(acceptance.good, named=ids, request_id=name))


@MANY
@given(data=st.data())
def test_any_bytes_of_the_message(acceptance: Acceptance, data: st.DataObject) -> None:
    """The request as it travels, with bytes of it altered."""
    acceptance.check_wire(data.draw(edited(acceptance.wire)))


@MANY
@given(data=st.data())
def test_whatever_an_approver_signs(acceptance: Acceptance, data: st.DataObject) -> None:
    """What is not strictly an approval of exactly this is none, however good its signature."""
    body = acceptance.good.approvals[0].body
    acceptance.check_signed(data.draw(st.one_of(edited(body), st.binary(max_size=80))))


def test_a_guided_fuzzer_finds_nothing_in_a_few_seconds(tmp_path: Path) -> None:
    """The same with coverage for a guide; `python -m tests.attacks.fuzz_accept -max_total_time=600` takes its time."""
    pytest.importorskip("atheris", reason="atheris has no build for this interpreter")
    found = subprocess.run(
        [sys.executable, "-m", "tests.attacks.fuzz_accept", "-max_total_time=2", f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        capture_output=True,
        check=False,
        timeout=90,
    )
    told = found.stderr.decode("utf-8", "replace")
    assert found.returncode == 0, told[-4000:]
    done = re.search(r"Done (\d+) runs", told)
    assert done is not None, told[-4000:]
    assert int(done[1]) > 100


@MANY
@given(data=st.data())
def test_any_revocation_altered(acceptance: Acceptance, data: st.DataObject) -> None:
    """An altered revocation takes nothing back: neither rows nor anything else are left of it."""
    good = acceptance.revocation
    altered = data.draw(another(good))
    if (altered.media_type, altered.body) == (good.media_type, good.body) and altered.signatures == good.signatures:
        return
    with pytest.raises(ExecutorError) as caught:
        acceptance.target.core.revoke(altered)
    assert caught.value.fault.remedy
    assert acceptance.target.ledger.revocations("m-elsewhere") == ()
