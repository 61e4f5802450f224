"""What a process can die at: the functions of the executor that change a workspace, one entry or one time each."""

from typing import Final

from executor.workspace import directories, switch, undoing

MUTATING: Final = (
    (switch, "rename_new"),
    (switch, "exchange"),
    (undoing, "change_metadata"),
    (switch, "change_metadata"),
    (undoing, "set_mtime"),
    (switch, "set_mtime"),
    (switch, "set_bits"),
    (switch, "keep_times"),
    (directories, "_restore"),
)


class Died(BaseException):
    """The process is no more."""
