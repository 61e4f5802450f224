"""All benchmarks: `python -m bench` prints one JSON line per figure; names on the command line choose some."""

import sys

from bench import commit, event_log, missions, sandbox
from bench.measure import note

BENCHMARKS = {
    "sandbox": sandbox.main,
    "commit": commit.main,
    "event_log": event_log.main,
    "missions": missions.main,
}


def main() -> int:
    """Run those that were named, or all."""
    chosen = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        note(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
        return 2
    for name in chosen:
        note(name)
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
