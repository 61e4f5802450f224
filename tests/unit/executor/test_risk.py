"""Facts of risk come from what changes, never from what a plan says."""

import pytest

from executor.domain.changes import Change, Node, NodeType, change_between
from executor.domain.report import RiskLevel
from executor.domain.risk import Around, highest, risk_facts

pytestmark = pytest.mark.quick

FILE = Node(type=NodeType.FILE, mode=0o644, digest="sha256:1", size=3)
CHANGED = Node(type=NodeType.FILE, mode=0o644, digest="sha256:2", size=3)


def around(head: bytes = b"", *, folds: bool = False, versioned: bool = True) -> Around:
    return Around(
        head=lambda _path, _node: head,
        folds=lambda _: folds,
        versioned=lambda _: versioned,
        git_directory=lambda path: path == b"bare",
    )


def change_of(path: bytes, old: Node | None, new: Node | None) -> Change:
    change = change_between(path, old, new)
    assert change is not None
    return change


def kinds(change: Change, where: Around | None = None) -> dict[str, RiskLevel]:
    return {fact.kind: fact.level for fact in risk_facts([change], where or around())}


BY_ITSELF = (
    *(b".git", b"sub/.git", b".git/config", b".git/hooks/pre-commit", b".git/modules/lib/config", b".git/info/exclude"),
    *(
        b".gitmodules",
        b".github/workflows/ci.yml",
        b"x/.github/actions/a/action.yml",
        b".gitlab-ci.yml",
        b"Jenkinsfile",
    ),
    *(b".vscode/tasks.json", b".idea/workspace.xml", b"deep/er/.envrc", b"tests/conftest.py", b"sitecustomize.py"),
    *(b"lib/evil.pth", b"package.json", b"web/package.json", b"setup.py", b".husky/pre-push", b".bashrc", b".profile"),
    *(b"bare/config", b"bare/hooks/post-receive", b"bare/info/attributes"),
    *(b"cron.d/job", b"units/app.service", b"app.timer", b".ssh/authorized_keys", b".config/autostart/a.desktop"),
)
WHEN_BUILT = (b"Makefile", b"a/CMakeLists.txt", b"pyproject.toml", b"Dockerfile", b"docker-compose.yml", b"AGENTS.md")
HARMLESS = (
    b"README.md",
    b"src/main.py",
    b"gitconfig.md",
    b"docs/package.json.md",
    b"makefiles/x",
    b".gitignore",
    b"a.git",
    b"plain/config",
    b"plain/hooks/post-receive",
    b"bare/notes",
)


@pytest.mark.parametrize("path", BY_ITSELF)
def test_what_runs_by_itself_is_high(path: bytes) -> None:
    """At any depth, whether it comes, changes or goes."""
    for change in (change_of(path, None, FILE), change_of(path, FILE, CHANGED), change_of(path, FILE, None)):
        assert kinds(change)["runs_later"] is RiskLevel.HIGH


@pytest.mark.parametrize("path", WHEN_BUILT)
def test_what_a_build_obeys_is_medium(path: bytes) -> None:
    """Somebody starts the build, but seldom reads what it obeys."""
    assert kinds(change_of(path, FILE, CHANGED)) == {"runs_when_built": RiskLevel.MEDIUM}


@pytest.mark.parametrize("path", HARMLESS)
def test_an_ordinary_change_has_no_fact(path: bytes) -> None:
    """A name that only looks alike is an ordinary one."""
    assert kinds(change_of(path, FILE, CHANGED)) == {}


def test_a_move_of_what_runs_later_counts_by_both_names() -> None:
    """Moved there or away from there."""
    for path, origin in ((b".envrc", b"a"), (b"a", b".envrc")):
        change = Change(path=path, kind=change_of(b"x", None, FILE).kind, old=FILE, new=FILE, moved_from=origin)
        assert kinds(change) == {"runs_later": RiskLevel.HIGH, "move": RiskLevel.LOW}


def test_case_counts_unless_the_file_system_folds_names() -> None:
    """`.GIT/config` is git's only where both names are the same."""
    change = change_of(b".GIT/Config", FILE, CHANGED)
    assert kinds(change) == {}
    assert kinds(change, around(folds=True)) == {"runs_later": RiskLevel.HIGH}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (FILE, None, {"delete": RiskLevel.MEDIUM}),
        (FILE, Node(type=NodeType.DIRECTORY, mode=0o755), {"type_change": RiskLevel.MEDIUM}),
        (None, Node(type=NodeType.SYMLINK, mode=0o777, link_target=b"a"), {"symlink": RiskLevel.MEDIUM}),
        (FILE, Node(type=NodeType.FILE, mode=0o755, digest="sha256:1", size=3), {"executable": RiskLevel.MEDIUM}),
        (FILE, Node(type=NodeType.FILE, mode=0o600, digest="sha256:1", size=3), {"mode": RiskLevel.LOW}),
        (
            None,
            Node(type=NodeType.FILE, mode=0o666, digest="sha256:1", size=1 << 30),
            {"world_writable": RiskLevel.MEDIUM, "large": RiskLevel.MEDIUM},
        ),
    ],
)
def test_each_kind_of_change_has_its_facts(old: Node | None, new: Node | None, expected: dict[str, RiskLevel]) -> None:
    """Deletes, other types, links, bits and size."""
    assert kinds(change_of(b"a", old, new)) == expected


@pytest.mark.parametrize(
    ("head", "level"),
    [
        (b"\x7fELF\2\1", RiskLevel.MEDIUM),
        (b"MZ\x90", RiskLevel.MEDIUM),
        (b"\0asm\1", RiskLevel.MEDIUM),
        (b"a\0b", RiskLevel.LOW),
    ],
)
def test_what_no_diff_can_show_is_said(head: bytes, level: RiskLevel) -> None:
    """By its content; a file that only moved or changed its bits brings none."""
    assert kinds(change_of(b"a", FILE, CHANGED), around(head)) == {"binary": level}
    bits = Node(type=NodeType.FILE, mode=0o600, digest=FILE.digest, size=3)
    assert "binary" not in kinds(change_of(b"a", FILE, bits), around(head))
    assert "binary" not in kinds(change_of(b"a", FILE, CHANGED), around(b"plain\n"))


def test_many_changes_and_missing_versions_are_said_once() -> None:
    """Not once for each path."""
    changes = [change_of(b"f%d" % number, FILE, CHANGED) for number in range(300)]
    facts = risk_facts(changes, around(versioned=False))
    assert [(fact.kind, fact.path) for fact in facts] == [("many_changes", ""), ("unversioned", "")]
    assert "300 paths" in facts[1].detail
    assert highest(facts) is RiskLevel.MEDIUM
    assert highest(()) is RiskLevel.LOW
