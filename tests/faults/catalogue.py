"""The scenarios by name, as a worker is told them."""

from pathlib import Path

from tests.faults.scenarios import CommitScenario, Scenario, SecondCommitScenario, UndoScenario


def make_scenario(name: str, home: Path) -> Scenario:
    """Make a scenario in a folder of its own."""
    kind, _, rest = name.partition(", ")
    match kind:
        case "commit":
            return CommitScenario(home)
        case "second commit":
            return SecondCommitScenario(home)
        case "undo":
            return UndoScenario(home)
        case "mission":
            from tests.faults.missions import MissionScenario  # a whole executor takes a moment to load

            return MissionScenario(home, rest)
        case _:
            raise ValueError(name)
