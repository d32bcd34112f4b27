"""Small stores and who works on each, for the model of prune_model.py."""

from __future__ import annotations

from tests.repository.prune_states import Condemned, Pack, Point, Rules, Store, names
from tests.repository.prune_steps import Memory, Process, State


def scenarios(rules: Rules) -> dict[str, State]:
    """Small stores, and who works on each."""

    def writer(name: str, chunks: str, *, based: bool = False) -> Process:
        return Process(name, "writer", rules.writer, frozenset(chunks), based)

    def condemner(name: str) -> Process:
        return Process(name, "condemner", rules.condemner)

    def completer(name: str) -> Process:
        return Process(name, "completer", rules.completer)

    def ender(name: str) -> Process:
        return Process(name, "ender", rules.ender)

    retention = Process("R", "retention", ("delete_point",))
    y = frozenset({Point("Y", "Y", frozenset("a"))})
    garbage = Store(packs=frozenset({Pack("G", frozenset("a"))}))
    dropped = garbage._replace(condemned=frozenset({Condemned("C-0", frozenset("G"))}))
    needed = Store(packs=frozenset({Pack("P", frozenset("ab"))}), points=y)
    twice = Store(packs=frozenset({Pack("P", frozenset("a")), Pack("Q", frozenset("a"))}), points=y)
    first, second = (Condemned(f"C-{pack}", frozenset(pack), names(y)) for pack in "PQ")
    decided = Process("Q", "condemner", ("condemn",), memory=Memory(points=y, chosen=second.packs))
    return {
        # what a writer deduplicates against is garbage until it commits
        "garbage": (garbage, (writer("X", "a"), condemner("1"), completer("2"), ender("3"))),
        "two writers": (garbage, (writer("X", "a"), writer("Z", "a"), condemner("1"), completer("2"), ender("3"))),
        # the base goes while a writer builds on it
        "base": (needed, (writer("X", "a", based=True), condemner("1"), completer("2"), ender("3"), retention)),
        "chain": (
            garbage,
            (writer("X", "a"), writer("Z", "ab", based=True), condemner("1"), completer("2"), retention),
        ),
        # two prunes condemn what the other counts on
        "two prunes": (twice, (condemner("1"), condemner("2"), completer("3"), completer("4"))),
        "both copies condemned": (
            twice._replace(condemned=frozenset({first, second})),
            (writer("X", "a", based=True), completer("1"), completer("2"), retention),
        ),
        # several complete one condemnation, one of them long after it decided to
        "late completion": (dropped, (writer("X", "a"), completer("1"), completer("2"))),
        "late condemnation": (
            twice._replace(condemned=frozenset({first})),
            (decided, completer("1"), completer("2"), completer("3")),
        ),
        # several end one session
        "ended twice": (garbage, (writer("X", "a"), condemner("1"), completer("2"), ender("3"), ender("4"))),
    }
