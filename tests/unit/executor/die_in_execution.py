"""Executes one mission and dies by SIGKILL in the middle of it: after the claim, or after the first file."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

from executor.domain.events import StepStarted
from executor.domain.plan import Stage
from executor.runner.flusher import INTERVAL_SECONDS
from executor.runner.orders import Order
from executor.runner.ports import Ended
from gonogo import sealing
from tests.unit.executor.house import House


class DyingExecutioner:
    """Begins the first step, lets that become durable, and dies."""

    def __init__(self, when: str) -> None:
        self.when = when

    def run(self, order: Order) -> Ended:
        if self.when == "step":
            order.emit(StepStarted(step_id="s1", kind="write_file", stage=Stage.EDIT, target="hello.txt"))
            time.sleep(5 * INTERVAL_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def main(root: Path, when: str) -> None:
    """Keep the documents for whoever comes after, then execute."""
    house = House(root)
    (root / "executor.key").write_bytes(house.executor_key.private_bytes())
    request = house.ready()
    assert request.report is not None
    documents = {"plan": request.plan, "report": request.report, "approval": request.approvals[0]}
    for name, document in documents.items():
        (root / name).write_bytes(document.body)
    (root / "approval.sig").write_bytes(request.approvals[0].signatures[0].signature)
    (root / "owner.key").write_bytes(house.owner.key.private_bytes())
    assert request.plan.media_type == sealing.PLAN
    executions = house.core._executions
    executions._carrier = dataclasses.replace(executions._carrier, executioner=DyingExecutioner(when))
    house.execute(request)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
