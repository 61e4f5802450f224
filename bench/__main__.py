"""All benchmarks: `python -m bench` prints one JSON line per figure; names on the command line choose some.

At the end the figures stand once more on standard error, as a table for people.
"""

import sys

from bench import audit, commit, control, dry_runs, event_log, gates, large_log, memory, missions, steps, watching
from bench.measure import note, told
from bench.table import table

BENCHMARKS = {
    "dry_runs": dry_runs.main,
    "commit": commit.main,
    "steps": steps.main,
    "memory": memory.main,
    "event_log": event_log.main,
    "audit": audit.main,
    "gates": gates.main,
    "missions": missions.main,
    "watching": watching.main,
    "large_log": large_log.main,
    "control": control.main,
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
    note(table(told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
