"""Fixtures of the contract suite: a backend, and what its ranks did in a scenario."""

import pytest

from tests.contract import scenarios
from tests.contract.subjects import SUBJECTS
from tests.support.ranks import run_ranks

PROGRAM = "tests.contract.scenarios:run"
SCENARIOS_OF_8 = ("reductions", "training_6")
TIMEOUT_SECONDS = 120.0


@pytest.fixture(scope="session", params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request):
    return request.param


@pytest.fixture(scope="session")
def outcome(subject):
    """outcome(scenario, size): the arrays that each rank returned, in rank order; run once a session."""
    finished = {}

    def get(scenario, size):
        if (scenario, size) not in finished:
            of_size = SCENARIOS_OF_8 if size == 8 else tuple(scenarios.SCENARIOS)
            together = (scenario,) if subject.one_scenario_a_process else of_size
            ranks = run_ranks(
                PROGRAM,
                size,
                timeout_seconds=TIMEOUT_SECONDS,
                arguments={"factory": subject.factory, "scenarios": together},
                environment=subject.environment,
            )
            for name in together:
                prefix = name + "/"
                finished[name, size] = [
                    {key[len(prefix) :]: value for key, value in rank.items() if key.startswith(prefix)}
                    for rank in ranks
                ]
        return finished[scenario, size]

    return get
