"""Every interleaving of writers, retention and prunes on a small store: the model of vbackup/repository/PRUNE.md.

A process is a value: what it remembers, and the plan of steps it has still to do. Each step is one operation on the
store, which shows everything done before it (read your writes). Between two steps anything may happen, and since all
states are checked, not only the last ones, every process also dies, or stands still for ever, after each step.

Where the protocol leaves a choice the model tries all of them: a prune condemns any packs, needed or not, of live
sessions or not; anybody ends any session at any time; who condemns, who completes and who ends sessions are processes
of their own, without a session. That is more than real prunes do, so what holds here holds for them. Indexes are left
out: they are derived from packs. What a list shows is what is there at one moment; lists of many pages are not like
that, so a real prune that finds a chunk nowhere looks again before it calls the chunk lost.

`python -m tests.repository.prune_model` prints how many states there are, and how each mutation breaks a promise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from tests.repository.prune_mutations import MUTATIONS, PROTOCOL
from tests.repository.prune_scenarios import scenarios
from tests.repository.prune_states import (
    Condemned,
    Names,
    Point,
    Rules,
    Store,
    chunks_of,
    counting,
    names,
    needs_of,
    show,
)
from tests.repository.prune_steps import Process, State


class Finding(NamedTuple):
    """How many states there are, or were until one broke a promise; which promise, and the steps that lead there."""

    states: int
    problem: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n  ".join([f"{self.states} states: {self.problem or 'all promises hold'}", *self.trace])


def explore(first: State, rules: Rules) -> Finding:
    """Go through all states, those that take few steps first; then see what a prune makes of each."""
    came: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        if problem := broken(state, rules):
            return Finding(len(came), problem, trace(came, state))
        for said, after in moves(state, rules):
            if after not in came:
                came[after] = (state, said)
                queue.append(after)
    seen: set[Store] = set()
    for state in came:
        if state[0] not in seen and (problem := left_over(state[0], rules)):
            return Finding(len(came), problem, (*trace(came, state), "all die, and one prune runs alone"))
        seen.add(state[0])
    return Finding(len(came))


def moves(state: State, rules: Rules) -> Iterator[tuple[str, State]]:
    store, processes = state
    for i, process in enumerate(processes):
        for said, after, moved in process.steps(store, rules):
            yield said, (after, (*processes[:i], moved, *processes[i + 1 :]))


def trace(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    steps = []
    while (before := came[state]) is not None:
        state, said = before
        steps.append(said)
    return tuple(reversed(steps))


def broken(state: State, rules: Rules) -> str:
    """Say which promise to the owners of points a state breaks."""
    store, processes = state
    there = chunks_of(store.packs)
    points = counting(store.points, store.verdicts, rules)
    for point in points:
        if lost := point.needs - there:
            return f"point {point.name} counts and needs {show(lost)}, which no pack has"
    for process in processes:
        if process.note == "promised" and process.name in names(store.points - points):
            return f"point {process.name} was stored, and does not count"
        if process.note == "alarm":
            return f"{process.says('takes for lost what is there')}"
    return ""


def left_over(store: Store, rules: Rules) -> str:
    """Say what is left though nobody needs it when all processes die now, and one prune runs alone."""
    for _ in {name for name, _ in store.sessions}:
        store = alone(Process("last", "ender", rules.ender), store, rules)
    for _ in store.condemned:
        store = alone(Process("last", "completer", rules.completer), store, rules)
    points = counting(store.points, store.verdicts, rules)
    if garbage := garbage_of(store, points):
        store = store._replace(condemned=store.condemned | {Condemned("C-last", garbage)})
        store = alone(Process("last", "completer", rules.completer), store, rules)
    sessions = frozenset(name for name, _ in store.sessions)
    left = garbage_of(store, points) | names(store.condemned) | sessions
    return broken((store, ()), rules) or (f"{show(left)} is left for ever" if left else "")


def alone(process: Process, store: Store, rules: Rules) -> Store:
    while step := next(process.steps(store, rules), None):
        _, store, process = step
    return store


def garbage_of(store: Store, points: frozenset[Point]) -> Names:
    kept = store.packs
    for pack in sorted(store.packs):
        if not needs_of(points) & (pack.chunks - chunks_of(kept - {pack})):
            kept -= {pack}
    return names(store.packs - kept)


def main() -> None:
    for name, state in scenarios(PROTOCOL).items():
        print(f"{name}: {explore(state, PROTOCOL)}")
    for name, (rules, where, _) in MUTATIONS.items():
        print(f"\nif {name} ({where}): {explore(scenarios(rules)[where], rules)}")


if __name__ == "__main__":
    main()
