"""Running what docs/deploy.md tells people to type, as it stands there."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.image_test.engine import EngineError

PAGE = Path(__file__).resolve().parents[2] / "docs/deploy.md"


def run_commands(heading: str, variables: Mapping[str, str]) -> None:
    """Run the shell blocks below a heading.

    Raises:
        EngineError: there is none, or one of them failed.
    """
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    if not script:
        raise EngineError(f"docs/deploy.md gives no commands below {heading!r}")
    environment = {**os.environ, **variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"the commands of docs/deploy.md failed: {done.stderr.strip()}")
