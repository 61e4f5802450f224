"""Files that some program runs or obeys later are told from the change set, however and at whatever depth they come."""

import subprocess
from pathlib import Path

import pytest

from client.render.reports import report_text
from gonogo.v1 import evidence_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    CaseHouse,
    Step,
    Tried,
    appended,
    command,
    created,
    made,
    moded,
    moved,
    python,
    shell,
    written,
)

HIGH = evidence_pb2.RISK_LEVEL_HIGH
GIT = [
    "git",
    "-c",
    "user.name=n",
    "-c",
    "user.email=e@x",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "protocol.file.allow=always",
]


def git(folder: Path, *words: str) -> str:
    """Run git outside of any sandbox, without the machine's configuration."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nowhere", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run([*GIT, *words], cwd=folder, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "file").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def repo(house: CaseHouse) -> CaseHouse:
    """A workspace that is a git repository."""
    repository(house.site)
    return house


def high(found: Tried) -> set[str]:
    """The paths that are said to run later, which make the whole report one of high risk, shown as such."""
    paths = {path for (kind, path), level in found.facts.items() if kind == "runs_later" and level == HIGH}
    if paths:
        assert found.report.risk.level == HIGH
        text = report_text(found.report, "d")
        assert "high" in text
        assert all(path in text for path in paths)
    return paths


PERSISTENT: dict[str, tuple[list[Step], str]] = {
    "typed hook": ([created(".git/hooks/pre-commit", "#!/bin/sh\nevil\n", "0755")], ".git/hooks/pre-commit"),
    "hook by command": (
        [shell("printf '#!/bin/sh\\n' > .git/hooks/post-checkout; chmod 755 .git/hooks/post-checkout")],
        ".git/hooks/post-checkout",
    ),
    "hooks path by git config": ([shell("git config core.hooksPath evil")], ".git/config"),
    "fsmonitor by git config": ([shell("git config core.fsmonitor ./evil")], ".git/config"),
    "fsmonitor by text": ([appended(".git/config", "[core]\n\tfsmonitor = ./evil\n")], ".git/config"),
    "worktree configuration": (
        [shell("git config extensions.worktreeConfig true; git config --worktree core.fsmonitor ./evil")],
        ".git/config.worktree",
    ),
    "attributes in info": (
        [shell("mkdir -p .git/info; echo '* filter=evil' > .git/info/attributes")],
        ".git/info/attributes",
    ),
    "attributes file": ([created(".gitattributes", "* filter=evil\n")], ".gitattributes"),
    "hooks linked": ([shell("rm -r .git/hooks; ln -s ../evil .git/hooks")], ".git/hooks"),
    "hooks moved by command": (
        [shell("mkdir evil; echo x > evil/pre-commit; rm -r .git/hooks; mv evil .git/hooks")],
        ".git/hooks/pre-commit",
    ),
    "hooks moved by step": (
        [made("evil"), created("evil/pre-commit"), shell("rm -r .git/hooks"), moved("evil", ".git/hooks")],
        ".git/hooks/pre-commit",
    ),
    "bits of a hook": ([moded(".git/hooks/sample", "0755")], ".git/hooks/sample"),
    "nested repository": (
        [shell("mkdir -p a/b; git init -q a/b/c; echo x > a/b/c/.git/hooks/pre-push")],
        "a/b/c/.git/hooks/pre-push",
    ),
    "submodule": (
        [shell("mkdir -p .git/modules/m/hooks; echo x > .git/modules/m/hooks/pre-commit")],
        ".git/modules/m/hooks/pre-commit",
    ),
    "worktree pointer": (
        [python("import os; os.makedirs('.git/worktrees/w'); open('.git/worktrees/w/commondir', 'w').write('/x')")],
        ".git/worktrees/w/commondir",
    ),
    "submodule list": ([created(".gitmodules", '[submodule "m"]\n')], ".gitmodules"),
    "common directory": ([created(".git/commondir", "../evil\n")], ".git/commondir"),
}


@case("S28")
@pytest.mark.parametrize("name", PERSISTENT)
def test_git_hooks_and_configuration_are_of_high_risk(repo: CaseHouse, name: str) -> None:
    """Written by a typed step or a program, moved or linked there, given bits, in a submodule or nested repository."""
    steps, path = PERSISTENT[name]
    (repo.site / ".git" / "hooks" / "sample").write_text("#!/bin/sh\n")
    assert path in high(repo.worked(*steps))


@case("S30")
@pytest.mark.parametrize("how", ["typed", "command", "moved", "replaced"])
def test_a_git_file_that_leads_elsewhere_is_of_high_risk(house: CaseHouse, how: str) -> None:
    """A `.git` that is a file, rewritten to another directory, at the top or below, is a file that runs later."""
    (house.site / "sub").mkdir()
    (house.site / "sub" / ".git").write_text("gitdir: ../.real\n")
    (house.site / "evil").write_text("gitdir: /attacker\n")
    steps = {
        "typed": [written("sub/.git", "gitdir: /attacker\n")],
        "command": [shell("echo 'gitdir: /attacker' > sub/.git")],
        "moved": [shell("rm sub/.git"), moved("evil", "sub/.git")],
        "replaced": [shell("rm sub/.git; ln -s ../evil sub/.git")],
    }[how]
    assert "sub/.git" in high(house.worked(*steps))


@case("S32")
@pytest.mark.parametrize(
    "words",
    [
        "show --output=.git/config",
        "diff --output=.git/hooks/pre-commit HEAD",
        "archive -o .git/hooks/x HEAD",
        "format-patch -1 -o .git/hooks",
        "bundle create .git/hooks/b HEAD",
    ],
)
def test_a_harmless_looking_git_command_is_judged_by_what_it_wrote(repo: CaseHouse, words: str) -> None:
    """`git show --output` and its like write into .git: the change set says so, whatever the words look like."""
    found = repo.tried(command("git", *words.split()))
    assert {path for path, _ in found.changes} & high(found)


@case("S32")
def test_a_separate_git_directory_is_seen(house: CaseHouse) -> None:
    """`git init --separate-git-dir` leaves a `.git` file and a directory that is a repository under another name."""
    found = house.worked(shell("mkdir plain; git init -q --separate-git-dir=plain/name sub"))
    assert "sub/.git" in high(found)
    assert "plain/name/config" in high(found), "what git obeys when it starts in plain/name"


@case("X100")
@pytest.mark.parametrize(
    "how",
    [
        "git init -q --bare b/are",
        "mkdir -p b/are/objects b/are/refs; echo 'ref: refs/heads/x' > b/are/HEAD; echo '[core]' > b/are/config",
    ],
)
def test_a_bare_repository_in_the_workspace_is_of_high_risk(house: CaseHouse, how: str) -> None:
    """Git that is started in such a folder obeys its configuration: it counts, though no `.git` is in its name."""
    assert "b/are/config" in high(house.worked(shell(how)))


BY_THEMSELVES = [
    ".github/workflows/ci.yml",
    ".gitlab-ci.yml",
    ".circleci/config.yml",
    "Jenkinsfile",
    "azure-pipelines.yml",
    ".travis.yml",
    "bitbucket-pipelines.yml",
    ".buildkite/pipeline.yml",
    ".drone.yml",
    ".vscode/tasks.json",
    ".vscode/settings.json",
    ".idea/workspace.xml",
    ".devcontainer/devcontainer.json",
    ".envrc",
    ".husky/pre-commit",
    ".pre-commit-config.yaml",
    "lefthook.yml",
    "conftest.py",
    "sitecustomize.py",
    "x.pth",
    "setup.py",
    "package.json",
    ".npmrc",
    ".yarnrc.yml",
    ".cargo/config.toml",
    "build.rs",
    ".bashrc",
    ".profile",
    ".zshrc",
    ".hg/hgrc",
    ".gdbinit",
    ".exrc",
    ".mcp.json",
    ".claude/settings.json",
    ".cursor/mcp.json",
    ".tool-versions",
    ".gitconfig",
    "x.service",
    "crontab",
]
WHEN_BUILT = [
    "Makefile",
    "pyproject.toml",
    "tox.ini",
    "noxfile.py",
    "Dockerfile",
    "docker-compose.yml",
    "pom.xml",
    "build.gradle",
    "CMakeLists.txt",
    ".mvn/extensions.xml",
    ".eslintrc.js",
    "webpack.config.js",
    "Rakefile",
    "Gemfile",
    "gulpfile.js",
    "AGENTS.md",
]


def writing(path: str) -> Step:
    """A command that writes a file of some name at the top of the workspace and far below."""
    folder = path.rpartition("/")[0]
    return shell(f"mkdir -p './{folder}' './a/b/c/{folder}'; echo x > '{path}'; echo x > 'a/b/c/{path}'")


@case("X101")
@pytest.mark.parametrize("path", BY_THEMSELVES)
def test_files_that_run_by_themselves_are_of_high_risk_at_any_depth(house: CaseHouse, path: str) -> None:
    """Continuous integration, editors, shells, package managers, agents: at the top and far below."""
    assert {path, f"a/b/c/{path}"} <= high(house.worked(writing(path)))


@case("X101")
@pytest.mark.parametrize("path", WHEN_BUILT)
def test_files_that_builds_obey_are_told(house: CaseHouse, path: str) -> None:
    """What runs once somebody builds, tests or starts an agent is a fact of its own, at the top and far below."""
    told = {place for (kind, place) in house.worked(writing(path)).facts if kind.startswith("runs_")}
    assert {path, f"a/b/c/{path}"} <= told


@case("X102")
def test_ordinary_files_are_not_of_high_risk(house: CaseHouse) -> None:
    """A warning that is always there warns of nothing."""
    names = (
        "README.md src/main.py docs/git/hooks.md tests/test_a.py config.txt hooks/readme .gitignore a.git/notes env/x"
    )
    found = house.worked(shell(f"for f in {names}; do mkdir -p $(dirname $f); echo x > $f; done"))
    assert high(found) == set()
    assert found.report.risk.level != HIGH


@case("X103")
def test_facts_come_from_the_change_and_never_from_the_plans_words(house: CaseHouse) -> None:
    """A plan that calls itself harmless changes no fact: deletes, bits, links and binaries are told as they are."""
    (house.site / "old").write_text("old\n")
    plan = house.plan(
        shell("rm old; echo x > run; chmod 755 run; ln -s run link; printf '\\0\\1' > bin"),
        objective="harmless, low risk",
    )
    plan.steps[0].description = "read only; risk: low"
    facts = house.dry_run(plan).facts
    assert {("delete", "old"), ("executable", "run"), ("symlink", "link")} <= facts.keys()
