"""No interleaving of the prune protocol breaks a promise, and each of its rules is needed."""

from __future__ import annotations

import pytest

from tests.repository.prune_model import explore
from tests.repository.prune_mutations import FREEDOMS, MUTATIONS, PROTOCOL
from tests.repository.prune_scenarios import scenarios


@pytest.mark.parametrize("name", scenarios(PROTOCOL))
def test_every_point_that_counts_is_whole_and_nothing_is_left_for_ever(name):
    found = explore(scenarios(PROTOCOL)[name], PROTOCOL)
    assert not found.problem, str(found)
    assert found.states > 1000  # or the processes stood still


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_rule_that_is_dropped_is_missed(name):
    rules, where, harm = MUTATIONS[name]
    found = explore(scenarios(rules)[where], rules)
    assert harm in found.problem, str(found)


@pytest.mark.parametrize("name", FREEDOMS)
def test_what_the_protocol_leaves_open_does_no_harm(name):
    rules = FREEDOMS[name]
    for where in ("garbage", "base", "chain", "two prunes", "late completion", "ended twice"):
        found = explore(scenarios(rules)[where], rules)
        assert not found.problem, f"{where}: {found}"


def test_a_violation_comes_with_the_steps_that_lead_to_it():
    rules, where, _ = MUTATIONS["packs are deleted as soon as they are condemned"]
    steps = explore(scenarios(rules)[where], rules).trace
    assert steps.index("condemner 1: put condemned/C-1: {G}") < steps.index("completer 2: delete pack G")
