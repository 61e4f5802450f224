"""The gates 1 to 5: what it costs to decide whether a request is good, against verifying two signatures and no more."""

import dataclasses
import tempfile
import time
from pathlib import Path

from bench.measure import Compared, interleaved, median, note, tell_ratio
from executor.domain.sealed import SealedBytes
from executor.runner.requests import ExecuteInput
from gonogo.signatures import new_signing_key
from gonogo.v1 import plan_pb2
from tests.attacks.target import Target

FEW, MANY = 20, 1_000
ROUNDS = 15
CHECKS, MANY_CHECKS, VERIFICATIONS = 20, 2, 100
MARK = 10.0
"""Two milliseconds on the machine where two verifications take a fifth of one."""
MANY_MARK = 20.0
MESSAGE = b"x" * 512


def main() -> None:
    """Measure requests with two approvals and reports of few and of many changes."""
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as folder:
        target = Target(Path(folder).resolve())
        try:
            few, many = _request(target, FEW), _request(target, MANY)
            compared = interleaved(lambda: _check(target, few, CHECKS), _verify_two, ROUNDS)
            note(f"gates 1 to 5, {FEW} changes: {median(compared.subject) * 1000:.2f} ms")
            tell_ratio(f"gates_2_approvals_{FEW}_changes", compared, MARK)
            more = interleaved(lambda: _check(target, many, MANY_CHECKS), _verify_two, ROUNDS)
            tell_ratio(f"gates_per_{MANY}_changes", _per_many(more, median(compared.subject)), MANY_MARK)
        finally:
            target.close()


def _check(target: Target, request: ExecuteInput, times: int) -> float:
    """Return the seconds of one check of a request that has just arrived: nothing of it was looked at before."""
    gates = target.core._executions._gates  # noqa: SLF001 - the gates alone, without the ledger's commit
    arrived = [_fresh(request) for _ in range(times)]
    started = time.perf_counter()
    for one in arrived:
        gates.check(one)
    return (time.perf_counter() - started) / times


def _fresh(request: ExecuteInput) -> ExecuteInput:
    approvals = tuple(dataclasses.replace(one) for one in request.approvals)
    report = None if request.report is None else dataclasses.replace(request.report)
    return dataclasses.replace(request, plan=dataclasses.replace(request.plan), report=report, approvals=approvals)


def _verify_two() -> float:
    key = new_signing_key()
    signature = key.key.sign(MESSAGE)
    started = time.perf_counter()
    for _ in range(VERIFICATIONS):
        key.public.key.verify(signature, MESSAGE)
        key.public.key.verify(signature, MESSAGE)
    return (time.perf_counter() - started) / VERIFICATIONS


def _per_many(compared: Compared, few: float) -> Compared:
    """Take from the cost of many changes what few cost."""
    share = MANY / (MANY - FEW)
    return Compared(subject=[max(one - few, 0.0) * share for one in compared.subject], floor=compared.floor)


def _request(target: Target, changes: int) -> ExecuteInput:
    plan = _plan(target, changes)
    report = target.dry_run(plan)
    people = (target.bob, target.carol)
    return target.request(plan, report, *(target.approve(plan, report, by=one) for one in people))


def _plan(target: Target, changes: int) -> SealedBytes:
    plan = target.plan(mission=f"m-{changes}")
    del plan.steps[:]
    for number in range(changes):
        create = plan_pb2.CreateFile(path=f"made-{number}.txt", content=f"file number {number}\n")
        plan.steps.add(step_id=f"s{number}", stage=plan_pb2.STAGE_EDIT, create_file=create)
    return target.sealed_plan(plan, by=target.alice)


if __name__ == "__main__":
    main()
