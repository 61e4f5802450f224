"""Whether what speaks to the far sides is installed: an extra of its own, since many executors never need it."""

from importlib.util import find_spec
from typing import Final

from executor.runner.ports import Finding

LIBRARIES: Final = ("httpx", "mcp", "psycopg", "sqlglot", "trafilatura")
"""What the extra brings; it is imported only in the processes that use it."""
INSTALL: Final = "pip install gonogo[live]; of the images, gonogo-executor-live and gonogo-executor-commands have it"


def live_extra() -> Finding:
    """Say whether the extra is installed; nothing of it is imported."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if not missing:
        return Finding(name="live_steps", ok=True, detail="the live extra is installed", remedy="")
    detail = f"the live extra is not installed, {', '.join(missing)} missing: steps that need it are blocked"
    return Finding(name="live_steps", ok=False, detail=detail, remedy=f"where they are wanted: {INSTALL}")
