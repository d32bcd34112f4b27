"""Goals of speed: what was wanted, what was reached, and what others reach, each from one run.

A ratio compares medians of the same run, for a machine that others share is never as fast twice.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.measure import table


@dataclass(frozen=True)
class Outcome:
    """One line of the table: texts, and whether the goal was met; None for a figure without one."""

    what: str
    goal: str
    reached: str
    met: bool | None
    peers: str = ""


@dataclass
class Report:
    """What a part of the benchmark says: lines of the table of goals, tables of its own, and raw figures for JSON."""

    outcomes: list[Outcome] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


def at_least(what: str, figure: float, goal: float, peers: str = "", *, unit: str = "x") -> Outcome:
    """More is better."""
    return Outcome(what, f"at least {goal:g}{unit}", f"{figure:.2f}{unit}", figure >= goal, peers)


def at_most(what: str, figure: float, goal: float, peers: str = "", *, unit: str = "x") -> Outcome:
    """Less is better."""
    return Outcome(what, f"at most {goal:g}{unit}", f"{figure:.2f}{unit}", figure <= goal, peers)


def median(figures: Sequence[float]) -> float:
    """Of the rounds of one run."""
    return statistics.median(figures)


def goals(outcomes: Sequence[Outcome]) -> str:
    """Return the table of goals."""
    marks = {True: "met", False: "**missed**", None: ""}
    rows = [[o.what, o.goal, o.reached, marks[o.met], o.peers] for o in outcomes]
    return table("Goals", ["what", "goal", "reached", "", "peers"], rows)
