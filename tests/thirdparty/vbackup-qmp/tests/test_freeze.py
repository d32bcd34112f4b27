"""Freezing the guest's file systems, with a stand-in for its agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent import Agent
from machine import Lab, QemuMachine, make
from vbackup_qmp import agent as plugin_agent
from vbackup_qmp.hypervisor import QmpHypervisor

from vbackup.api import CaptureRequest, GuestError, Hypervisor, Quiesce, Unsupported
from vbackup.testing.crash import processes, ticking

OWNER = "0123456789abcdef" * 2

Starts = Callable[..., tuple[QmpHypervisor, Agent]]


@pytest.fixture
def lab(short: Path) -> Iterator[Lab]:
    """A machine whose processor runs."""
    lab = Lab(short, {"web": QemuMachine.small(short / "web", paused=False)})
    yield lab
    lab.close()


@pytest.fixture
def starts(lab: Lab) -> Iterator[Starts]:
    """Starts an agent, and makes a hypervisor that knows it."""
    agents: list[Agent] = []

    def start(**how: Any) -> tuple[QmpHypervisor, Agent]:
        path = lab.directory / "agent"
        agents.append(Agent(path, **how))
        machines = {"web": {**lab.options["machines"]["web"], "agent": str(path)}}
        return make({**lab.options, "machines": machines}, lab.state), agents[0]

    yield start
    for each in agents:
        each.close()


def capture(hypervisor: Hypervisor, quiesce: Quiesce) -> tuple[bool, list[str]]:
    """Capture the machine; return whether it was frozen, and the notes."""
    with hypervisor.capture("web", CaptureRequest(OWNER, quiesce=quiesce)) as made:
        made.check()
        return made.quiesced, list(made.notes)


@pytest.mark.parametrize("quiesce", [Quiesce.TRY, Quiesce.YES])
def test_frozen_for_the_moment(starts: Starts, quiesce: Quiesce) -> None:
    """It is frozen, and thawed before anything is read."""
    hypervisor, agent = starts()
    assert capture(hypervisor, quiesce) == (True, [])
    assert agent.asked == ["guest-ping", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]


def test_not_asked(starts: Starts) -> None:
    """`Quiesce.NO` does not touch the guest."""
    hypervisor, agent = starts()
    assert capture(hypervisor, Quiesce.NO) == (False, [])
    assert agent.asked == []


def test_an_agent_that_cannot(lab: Lab, starts: Starts) -> None:
    """It is thawed all the same, as it may be frozen in part; `Quiesce.YES` fails, and leaves nothing."""
    hypervisor, agent = starts(refuses={"guest-fsfreeze-freeze"})
    quiesced, notes = capture(hypervisor, Quiesce.TRY)
    assert not quiesced
    assert "the hook script failed" in notes[0]
    with pytest.raises(GuestError, match="the hook script failed"):
        capture(hypervisor, Quiesce.YES)
    assert agent.asked.count("guest-fsfreeze-thaw") == 2
    assert lab.leftovers() == []


def test_a_paused_machine(lab: Lab, starts: Starts) -> None:
    """Its agent cannot answer, and is not asked."""
    hypervisor, agent = starts()
    lab.machines["web"].monitor.ask("stop")
    quiesced, notes = capture(hypervisor, Quiesce.TRY)
    assert (quiesced, notes) == (False, ["web: its file systems were not frozen: the machine is paused"])
    assert agent.asked == []


def test_whether_it_answers(lab: Lab, starts: Starts) -> None:
    """It does, or there is none to ask."""
    with pytest.raises(Unsupported, match="no `agent`"):
        lab.opens().answers("web")
    hypervisor, agent = starts()
    assert hypervisor.answers("web")
    agent.close()
    assert not hypervisor.answers("web")


def test_an_agent_that_says_nothing(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port takes what is written to it also without an agent behind it."""
    monkeypatch.setattr(plugin_agent, "PING_SECONDS", 0.2)
    hypervisor, _ = starts(is_silent=True)
    assert not hypervisor.answers("web")
    with pytest.raises(GuestError, match="no answer in time"):
        capture(hypervisor, Quiesce.YES)
    assert not capture(hypervisor, Quiesce.TRY)[0]


def test_dying_while_it_is_frozen(lab: Lab, starts: Starts) -> None:
    """A sweep thaws it."""
    hypervisor, agent = starts()

    def action(tick: Callable[..., None]) -> None:
        ticking(plugin_agent, ["thaw"], tick)
        capture(hypervisor, Quiesce.YES)

    deaths = processes(action)
    next(deaths)
    assert agent.frozen
    agent.refuses = {"guest-fsfreeze-thaw"}
    with pytest.raises(GuestError, match="guest-fsfreeze-thaw"):
        hypervisor.sweep(OWNER)
    agent.refuses = ()
    assert "web: thawed its file systems" in hypervisor.sweep(OWNER)
    assert not agent.frozen
    assert lab.leftovers() == []
    deaths.close()


def test_started_again_after_dying_while_it_was_frozen(lab: Lab, starts: Starts) -> None:
    """What is not frozen any more is not thawed, whether its agent is up yet or not."""
    hypervisor, agent = starts()

    def action(tick: Callable[..., None]) -> None:
        ticking(plugin_agent, ["thaw"], tick)
        capture(hypervisor, Quiesce.YES)

    deaths = processes(action)
    next(deaths)
    lab.machines["web"].kill()
    lab.machines["web"].start()
    agent.close()
    assert [phrase.partition(" /")[0] for phrase in hypervisor.sweep(OWNER)] == ["web: removed"]
    deaths.close()
