"""Files that some program runs or obeys later, without anybody asking for it by name, at any depth.

A change to one of them reaches further than the workspace's own content. Those of the first table run by themselves:
when somebody commits, opens the folder, enters it, logs in, or pushes. Those of the second run when somebody builds,
tests or starts something that usually is harmless, or steer an agent that works here.
"""

import re

# What counts is the whole path, so that a directory of such a name makes everything beneath it count.
_BY_ITSELF = rb"""(?:^|/)(?:
    \.git(?:$|/(?:hooks(?:$|/)|config(?:\.worktree)?$|commondir$|info/|modules/|worktrees/|objects/info/))
  | \.gitmodules$
  | \.gitattributes$ | \.gitconfig$ | \.hg/hgrc$ | \.hgrc$ | \.svn/hooks/
  | \.husky(?:$|/) | \.githooks(?:$|/) | \.pre-commit-config\.ya?ml$ | \.?lefthook(?:-local)?\.(?:ya?ml|toml)$
  | \.github/ | \.gitlab(?:-ci\.ya?ml$|/) | \.gitea/ | \.forgejo/ | \.circleci/ | \.buildkite/ | \.tekton/ | \.ci/
  | Jenkinsfile[^/]*$ | azure-pipelines[^/]*\.ya?ml$ | bitbucket-pipelines\.ya?ml$ | \.travis\.ya?ml$
  | \.?appveyor\.ya?ml$ | \.drone\.ya?ml$ | \.woodpecker(?:\.ya?ml$|/) | cloudbuild\.ya?ml$ | buildspec\.ya?ml$
  | \.vscode/ | \.idea/ | \.fleet/ | \.zed/ | \.devcontainer(?:\.json$|/) | [^/]*\.code-workspace$
  | \.exrc$ | \.n?vimrc$ | \.nvim\.lua$ | \.dir-locals(?:-2)?\.el$ | \.cursor/ | \.claude/ | \.mcp\.json$
  | \.envrc$ | \.direnv/ | \.?mise(?:\.[^/]*)?\.toml$ | \.autoenv(?:\.[^/]*)?$ | \.tool-versions$
  | conftest\.py$ | sitecustomize\.py$ | usercustomize\.py$ | [^/]*\.pth$ | \.pdbrc$ | \.pythonrc(?:\.py)?$ | \.irbrc$
  | \.Rprofile$ | \.gdbinit$ | \.lldbinit$ | setup\.py$ | package\.json$ | \.npmrc$ | \.yarnrc(?:\.yml)?$
  | \.pnpmfile\.cjs$ | build\.rs$ | \.cargo/ | \.bazelrc$ | pip\.conf$ | \.curlrc$ | \.wgetrc$
  | \.(?:z|k|mk|c|tc)shrc$ | \.(?:bashrc|bash_profile|bash_login|bash_logout|bash_aliases|profile)$
  | \.z(?:shenv|profile|login|logout)$ | \.config/(?:fish|autostart|systemd)/ | \.ssh/
  | (?:ana)?crontab$ | cron\.(?:d|hourly|daily|weekly|monthly)/ | [^/]*\.(?:service|timer|socket|automount|desktop)$
  | LaunchAgents/ | LaunchDaemons/
)"""

_WHEN_BUILT = rb"""(?:^|/)(?:
    (?:GNU)?[Mm]akefile$ | [^/]*\.(?:mk|mak|cmake)$ | CMakeLists\.txt$ | meson\.build$ | SConstruct$ | SConscript$
  | BUILD(?:\.bazel)?$ | WORKSPACE(?:\.bazel)?$ | MODULE\.bazel$ | configure(?:\.ac)?$ | [^/]*\.gradle(?:\.kts)?$
  | gradlew(?:\.bat)?$ | mvnw(?:\.cmd)?$ | \.mvn/ | pom\.xml$ | build\.xml$ | build\.sbt$ | Cargo\.toml$ | Rakefile$
  | Gemfile$
  | [^/]*\.gemspec$ | [Jj]ustfile$ | Taskfile\.ya?ml$ | tox\.ini$ | noxfile\.py$ | tasks\.py$ | pytest\.ini$
  | pyproject\.toml$ | setup\.cfg$ | Procfile$ | [^/]*\.(?:csproj|fsproj|vbproj|props|targets)$ | flake\.nix$
  | (?:[^/]*\.)?(?:Dockerfile|Containerfile)(?:\.[^/]*)?$ | (?:docker-)?compose[^/]*\.ya?ml$ | Vagrantfile$
  | [^/]*\.config\.[cm]?[jt]s$ | \.?[^/]*rc\.[cm]?js$ | [Gg](?:ulp|runt)file\.[^/]*$
  | [^/]*\.tf$ | playbook[^/]*\.ya?ml$
  | AGENTS\.md$ | CLAUDE(?:\.local)?\.md$ | GEMINI\.md$ | \.cursorrules$ | \.windsurfrules$
)"""

RUNS_BY_ITSELF = re.compile(_BY_ITSELF, re.VERBOSE)
RUNS_WHEN_BUILT = re.compile(_WHEN_BUILT, re.VERBOSE)
RUNS_BY_ITSELF_FOLDED = re.compile(_BY_ITSELF, re.VERBOSE | re.IGNORECASE)
RUNS_WHEN_BUILT_FOLDED = re.compile(_WHEN_BUILT, re.VERBOSE | re.IGNORECASE)
