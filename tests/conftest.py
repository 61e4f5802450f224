"""The seed of a run: properties draw something else in each, and the same again with the seed that is printed."""

import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

OPTION = "hypothesis_seed"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed where nobody did, before Hypothesis asks for it; a worker has it from whom it works for."""
    settings.register_profile(
        "gonogo", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )  # no timing decides
    settings.load_profile("gonogo")
    if config.getoption(OPTION) is None:
        given = getattr(config, "workerinput", {})
        setattr(config.option, OPTION, given.get(OPTION) or str(secrets.randbits(32)))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give it to a worker."""
    node.workerinput[OPTION] = node.config.getoption(OPTION)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print it, however the run went; `--hypothesis-seed=N` draws the same again."""
    terminalreporter.write_line(f"hypothesis seed: {config.getoption(OPTION)}")
