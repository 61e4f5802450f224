"""What descends from a process, and that what can not be looked at is never taken for gone."""

import subprocess
import sys

_WITHOUT_DESCRIPTORS = """
import resource, subprocess, sys
from executor.outside.process_tree import ProcessIdentity, end_descendants

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
identity = ProcessIdentity.of(child.pid)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    said = str(identity.runs)
except OSError:
    said = "nobody knows"
ended = end_descendants(0.05)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
print(said, ended, identity.runs, end_descendants(10), child.wait(10))
"""


def test_without_a_free_descriptor_nothing_passes_for_gone() -> None:
    """That a process ended is said only where it could be looked for; then it is ended."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_DESCRIPTORS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split("\n")[0] == "nobody knows False True True -9"
