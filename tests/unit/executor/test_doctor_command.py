"""`python -m executor doctor`: what works where an executor is, or would be."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from executor.entrypoints.doctor_command import run
from tests.unit.executor.house import Person, trust_text


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What an executor is started with, in an image or on a host, that may run no commands."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state/trust.toml").write_text(trust_text({"owner": [Person("owner")]}))
    (tmp_path / "site").mkdir()
    return {
        "GONOGO_STATE": str(tmp_path / "state"),
        "GONOGO_WORKSPACE": f"site={tmp_path / 'site'}",
        "GONOGO_MAX_LADDER_LEVEL": "L1",
    }


def told(environment: dict[str, str], code: int = 0) -> Any:
    """Run it, as scripts do; return the findings by name."""
    out = io.StringIO()
    assert run(["-o", "json"], environment, out) == code
    said = json.loads(out.getvalue())
    assert said["ladder_level"] == "L1"
    return {one["name"]: one for one in said["findings"]}


def test_it_tells_what_works_and_what_does_not(environment: dict[str, str]) -> None:
    """Each thing with its state; what does not work with a remedy; nothing is made in state or workspace."""
    found = told(environment)
    assert {"trust_file", "sqlite", "ripgrep", "ladder", "live_steps", "max_ladder_level"} == found.keys()
    assert found["ladder"]["detail"].startswith("L1: typed steps")
    assert all(one["ok"] or one["remedy"] for one in found.values())
    assert not list(Path(environment["GONOGO_WORKSPACE"].partition("=")[2]).iterdir())
    assert not (Path(environment["GONOGO_STATE"]) / "executor").exists()


def test_without_the_extra_it_names_what_has_it(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host a package, in a container an image."""
    monkeypatch.setattr("executor.outside.installed.find_spec", lambda name: None if name == "mcp" else object())
    finding = told(environment)["live_steps"]
    assert (finding["ok"], "mcp missing" in finding["detail"]) == (False, True)
    assert "pip install gonogo[live]" in finding["remedy"]
    assert "gonogo-executor-live" in finding["remedy"]


def test_what_keeps_the_executor_from_starting_is_an_error(environment: dict[str, str]) -> None:
    """A trust file that can not be used: exit code 1, and the other findings all the same."""
    Path(environment["GONOGO_STATE"], "trust.toml").write_text("version = \n")
    found = told(environment, code=1)
    assert (found["trust_file"]["ok"], bool(found["trust_file"]["remedy"])) == (False, True)
    assert found["ladder"]["remedy"]


def test_a_person_reads_lines(environment: dict[str, str]) -> None:
    """One line for each, and what to do below those that need it."""
    out = io.StringIO()
    assert run([], environment, out) == 0
    assert out.getvalue().startswith("ok  trust_file ")
    assert "\nno  ladder " in out.getvalue()
