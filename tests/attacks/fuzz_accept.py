"""Fuzzes the acceptance with coverage for a guide: `python -m tests.attacks.fuzz_accept -max_total_time=20`.

Every input is one request: bytes as they arrive, a good request with edits, or an approval with edits that an approver
signed. It ends with 0 where the time was over, and stops at the first thing that comes out and is no refusal, and at
the first altered request that passes.
"""

import sys
import tempfile
from pathlib import Path

import atheris

READ_BY_THE_GATES = [
    "executor.adapters",
    "executor.domain",
    "executor.runner.approvals",
    "executor.runner.gates",
    "executor.runner.requests",
    "gonogo",
]

with atheris.instrument_imports(include=READ_BY_THE_GATES):
    from tests.attacks.acceptance import Acceptance

RAW, EDITED, SIGNED = range(3)
MAX_EDITS = 6


def edited(data: bytes, source: atheris.FuzzedDataProvider) -> bytes:
    """Apply the edits that the fuzzer has in mind."""
    for _ in range(source.ConsumeIntInRange(1, MAX_EDITS)):
        place = source.ConsumeIntInRange(0, len(data))
        taken = source.ConsumeIntInRange(0, 16)
        data = data[:place] + source.ConsumeBytes(source.ConsumeIntInRange(0, 16)) + data[place + taken :]
    return data


def main() -> None:
    """Fuzz until the time is over; libFuzzer's options are on the command line."""
    with tempfile.TemporaryDirectory(prefix="gonogo-fuzz-") as folder:
        acceptance = Acceptance(Path(folder).resolve())
        approval = acceptance.good.approvals[0].body

        def one(data: bytes) -> None:
            source = atheris.FuzzedDataProvider(data)
            match source.ConsumeIntInRange(RAW, SIGNED):
                case 0:
                    acceptance.check_wire(source.ConsumeBytes(source.remaining_bytes()))
                case 1:
                    acceptance.check_wire(edited(acceptance.wire, source))
                case _:
                    acceptance.check_signed(edited(approval, source))

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
