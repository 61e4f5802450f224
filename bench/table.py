"""The figures of one run as the table of the README."""

from collections.abc import Iterable, Mapping

BARE = "bare `bwrap` on the same overlay and two `find -printf` walks"
FILES = "write, fsync and rename of the same files"
TWO = "two raw Ed25519 verifications"
WORDS = {
    "command_dry_run_1000_files": ("dry run of the command `true`, 1,000 files", BARE),
    "command_dry_run_10000_files": ("the same, 10,000 files", BARE),
    "command_dry_run_100000_files": ("the same, 100,000 files", BARE),
    "typed_dry_run_100000_against_1000_files": ("dry run of typed steps, 100,000 files", "the same at 1,000 files"),
    "commit_100_files": ("commit of 100 new files of 4 KiB in one step", FILES),
    "commit_1000_files": ("commit of 1,000 new files of 4 KiB in one step", FILES),
    "rollback_100_files": ("rollback of 100 files", "their commit"),
    "rollback_1000_files": ("rollback of 1,000 files", "their commit"),
    "execution_of_100_one_file_steps": ("execution of 100 one-file steps, call to receipt", FILES),
    "command_step_of_100_against_10": ("one of 100 command steps", "one of 10"),
    "command_step_on_1000_changes_against_1": ("a command after 1,000 changed files", "a command after one"),
    "executor_memory_1_gib_change": ("memory of the executor process, a change of 1 GiB", "200 MiB"),
    "event_appends_64_callers": ("event appends, 64 callers", "one commit per append"),
    "event_append_1_caller": ("event append, one caller", "one commit per append"),
    "event_append_with_tree_64_callers": ("event appends with the audit tree, 64 callers", "without the tree"),
    "event_append_with_tree_1_caller": ("event append with the audit tree, one caller", "without the tree"),
    "verification_of_100000_events": ("verification of 100,000 events", "reading them"),
    "executor_record_with_tree": ("the executor's record of a mission, with its audit log", "without it"),
    "executor_record_with_anchor": ("the same where nothing happens while the anchor is moved", "without an anchor"),
    "inclusion_proof_1000000_leaves": ("inclusion proof in an audit log of 1,000,000 leaves", ""),
    "verification_of_100000_entries": ("verification of 100,000 entries with their records", "reading the entries"),
    "gates_2_approvals_20_changes": ("gates 1 to 5, 2 approvals, a report of 20 changes", TWO),
    "gates_per_1000_changes": ("what 1,000 changes more add to them", TWO),
    "missions_1": ("one-file mission, proposal to receipt, 1 caller", "create, fsync, three SQLite commits"),
    "watch_1_watchers": ("events to one watcher of a mission", "a stream of messages made beforehand"),
    "watch_100_watchers": ("the same, 100 watchers", "the same"),
    "watch_1000_watchers": ("the same, 1,000 watchers", "the same"),
    "start_with_1000000_events": ("start of the orchestrator with 1,000,000 events", "with 10,000"),
    "whiteboard_at_1000000_events": ("a whiteboard read, 1,000,000 events in the log", "10,000 in the log"),
    "pause_latency": ("from asking for a pause to hearing of it", ""),
    "stop_latency": ("from asking for a stop inside a running program to the receipt", ""),
    "start_with_100_interrupted_journals": ("start with 100 interrupted executions, each", ""),
    "missions_16": ("the same, 16 callers", "the same, 16 threads"),
}


def table(figures: Iterable[Mapping[str, object]]) -> str:
    """Return the figures of one run as a Markdown table."""
    rows = ["| what | floor of the same run | ratio | asked |", "|---|---|---|---|"]
    return "\n".join([*rows, *(_row(one) for one in figures)])


def _row(figure: Mapping[str, object]) -> str:
    name = str(figure["bench"])
    what, floor = WORDS.get(name, (name, ""))
    ratio, asked = _ratio(figure)
    return f"| {what} | {floor} | {ratio} | {asked} |"


def _ratio(figure: Mapping[str, object]) -> tuple[str, str]:
    asked = figure.get("asked", "")
    if "times_the_floor" in figure:
        return f"{figure['times_the_floor']} times its time", f"at most {asked}"
    if "share_of_floor" in figure:
        return f"{figure['share_of_floor']} times its rate", f"at least {asked}"
    if "milliseconds" in figure:
        return f"{figure['milliseconds']} ms", f"at most {asked} ms" if asked else ""
    if "mib" in figure:
        return f"{figure['mib']} MiB", f"at most {asked}"
    return f"{figure.get('ratio', '')} times its rate", str(asked)
