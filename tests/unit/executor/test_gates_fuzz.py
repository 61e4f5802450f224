"""No altered document passes the gates, and nothing but an executor's error ever comes out of them."""

import dataclasses
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.domain.errors import ExecutorError
from executor.domain.sealed import SealedBytes
from executor.runner.executions import RefusedError
from executor.runner.requests import ExecuteInput
from tests.unit.executor.house import House, ignore

MANY = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    yield house
    house.close()


@pytest.fixture(scope="module")
def good(house: House) -> ExecuteInput:
    """A request that every gate lets pass; it is never executed as it is."""
    return house.ready()


@st.composite
def altered(draw: st.DrawFn, body: bytes) -> bytes:
    """The same bytes with one of them changed, dropped, doubled or put in."""
    place = draw(st.integers(0, len(body) - 1))
    byte = draw(st.integers(0, 255).filter(lambda value: value != body[place]))
    kind = draw(st.sampled_from(["change", "drop", "insert", "cut"]))
    match kind:
        case "change":
            return body[:place] + bytes([byte]) + body[place + 1 :]
        case "drop":
            return body[:place] + body[place + 1 :]
        case "insert":
            return body[:place] + bytes([byte]) + body[place:]
        case _:
            return body[:place]


def refused(house: House, request: ExecuteInput) -> None:
    before = house.files()
    with pytest.raises(RefusedError) as caught:
        house.core.execute(request, ignore)
    assert caught.value.fault.remedy
    assert house.files() == before
    assert house.executioner.runs == []


@MANY
@given(data=st.data())
def test_an_altered_plan(house: House, good: ExecuteInput, data: st.DataObject) -> None:
    """Whatever byte of the plan changes, it is not the plan that was approved."""
    plan = dataclasses.replace(good.plan, body=data.draw(altered(good.plan.body)))
    refused(house, dataclasses.replace(good, plan=plan))


@MANY
@given(data=st.data())
def test_an_altered_report(house: House, good: ExecuteInput, data: st.DataObject) -> None:
    """Whatever byte of the report changes, it was not issued."""
    assert good.report is not None
    report = dataclasses.replace(good.report, body=data.draw(altered(good.report.body)))
    refused(house, dataclasses.replace(good, report=report))


@MANY
@given(data=st.data())
def test_an_altered_approval(house: House, good: ExecuteInput, data: st.DataObject) -> None:
    """Whatever byte of an approval or its signature changes, nobody signed it."""
    [approval] = good.approvals
    [signature] = approval.signatures
    if data.draw(st.booleans()):
        spoilt = dataclasses.replace(approval, body=data.draw(altered(approval.body)))
    else:
        raw = data.draw(altered(signature.signature))
        spoilt = dataclasses.replace(approval, signatures=(dataclasses.replace(signature, signature=raw),))
    refused(house, dataclasses.replace(good, approvals=(spoilt,)))


@MANY
@given(data=st.data())
def test_an_approval_of_anything(house: House, good: ExecuteInput, data: st.DataObject) -> None:
    """Whatever the approver signed that is not exactly such an approval is refused, however it parses."""
    [approval] = good.approvals
    body = data.draw(st.one_of(st.binary(max_size=60), altered(approval.body)))
    signed = house.owner.sign(approval.media_type, body)
    request = dataclasses.replace(good, approvals=(signed,))
    try:
        house.core._executions._gates.check(request)
    except ExecutorError:
        return
    # Only words that bind nothing may differ: the comment, the name of the approval, its times.
    opened = house.core._executions._restarts.documents.approval(signed)
    first = house.core._executions._restarts.documents.approval(approval)
    free = {"approval_id": "", "nonce": "", "comment": ""}
    times = {"approved_at": first.approved_at, "not_before": first.not_before, "expires_at": first.expires_at}
    assert dataclasses.replace(opened, **free, **times) == dataclasses.replace(first, **free)  # type: ignore[arg-type]  # by name


@MANY
@given(body=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_a_plan_of_anything(house: House, body: bytes) -> None:
    """A dry run of any bytes at all is an executor's error, and nothing is run."""
    before = house.simulator.runs
    with pytest.raises(ExecutorError):
        house.dry_run(SealedBytes(media_type="application/vnd.gonogo.plan.v1+json", body=body))
    assert house.simulator.runs == before


@MANY
@given(data=st.data())
def test_an_altered_plan_for_a_dry_run(house: House, good: ExecuteInput, data: st.DataObject) -> None:
    """An altered plan is either refused as such or dry run as the other plan that it is; nothing breaks."""
    body = data.draw(altered(good.plan.body))
    try:
        report = house.dry_run(SealedBytes(media_type=good.plan.media_type, body=body))
    except ExecutorError:
        return
    assert report.digest != (good.report.digest if good.report else "")
