"""How many examples a property is tried on, and how a failure is told.

`GONOGO_EXAMPLES` multiplies the numbers: 0.1 for a glance, 10 for a night. A failure prints the blob that repeats it;
what was drawn is different in each run, which ends with its seed, and `--hypothesis-seed=N` draws the same again.
"""

import os

from hypothesis import HealthCheck, settings


def bounded(examples: int) -> settings:
    """Return the settings of a property that is tried on about so many examples."""
    factor = float(os.environ.get("GONOGO_EXAMPLES", "1"))
    return settings(
        max_examples=max(1, round(examples * factor)),
        deadline=None,
        derandomize=False,  # as Hypothesis would where it finds CI: the same examples in every run
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        print_blob=True,
    )
