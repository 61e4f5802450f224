"""Which ids commands know: what is said about a file before a command runs is what the command then finds."""

import os
from pathlib import Path

import pytest

from executor.sandbox.storage import Storage
from tests.unit.executor.sandbox_scripts import NOBODY, a_place_for_all, an_ordinary_users, as_nobody, root_only


@root_only
@pytest.mark.sandbox
def test_it_says_what_a_command_finds() -> None:
    """For an ordinary user: exactly the files whose ids are not known can not be changed by a command."""
    owners = {"own": (NOBODY, NOBODY), "group": (NOBODY, 0), "user": (0, NOBODY), "both": (1, 1)}
    body = """
        from executor.runner.notices import KnownIds
        known = KnownIds.of_this_process()
        with sandbox.open(request) as session:
            for name in ("own", "group", "user", "both"):
                status = (request.workspace / name).stat()
                done = session.run(sh(f"echo x >> {name}"))
                print(status.st_uid in known.users and status.st_gid in known.groups, done.exit_code == 0)
    """
    with a_place_for_all() as place:
        workspace = Path(place, "ws")
        an_ordinary_users(workspace)
        for name, (uid, gid) in owners.items():
            (workspace / name).write_text("base")
            (workspace / name).chmod(0o666)
            os.chown(workspace / name, uid, gid)
        said = as_nobody(body, workspace, Storage.TMPFS).splitlines()
    assert said == ["True True", "False False", "False False", "False False"]
