"""What the model of prune_model.py knows of a store, and the rules of the protocol."""

from __future__ import annotations

from typing import Any, NamedTuple

Names = frozenset[str]
NONE: Names = frozenset()


class Rules(NamedTuple):
    """The protocol. A mutation is the protocol with one rule changed."""

    writer: tuple[str, ...] = (
        "announce", "list_condemned", "list_packs", "list_base", "tell", "store_chunks", "commit", "check", "leave",
    )  # fmt: skip
    condemner: tuple[str, ...] = ("list_points", "list_ended", "list_condemned", "list_packs", "choose", "condemn")
    completer: tuple[str, ...] = (
        "wait", "list_points", "list_ended", "list_condemned", "list_packs", "rescue", "delete_packs", "forget",
    )  # fmt: skip
    ender: tuple[str, ...] = ("look", "bar", "list_points", "judge", "remove")
    verdicts: str = "each"  # of a session must name a point: each, any, or none that is asked
    base: str = "checked"  # is built on: checked for its chunks where packs are condemned, clean, or trusted
    builds_on_condemned: bool = False
    counts_condemned: bool = False  # as copies that survive
    rescues: bool = True  # by a copy, or else by taking the condemnation back
    packs_named_by_content: bool = False


class Pack(NamedTuple):
    name: str
    chunks: Names


class Point(NamedTuple):
    name: str
    session: str
    needs: Names
    clean: Names = NONE


class Condemned(NamedTuple):
    name: str
    packs: Names
    points: Names = NONE


class Store(NamedTuple):
    packs: frozenset[Pack] = frozenset()
    points: frozenset[Point] = frozenset()
    condemned: frozenset[Condemned] = frozenset()
    sessions: frozenset[tuple[str, Names | None]] = frozenset()  # and what they named, once they have
    barred: Names = NONE  # ended/SID/0
    verdicts: frozenset[tuple[str, Names]] = frozenset()  # ended/SID/EID: the points that count


Step = tuple[str, Store, Any]


def counting(points: frozenset[Point], verdicts: frozenset[tuple[str, Names]], rules: Rules) -> frozenset[Point]:
    """The reader's rule."""
    if not verdicts or rules.verdicts == "none":
        return points
    judge = all if rules.verdicts == "each" else any
    judged = {session for session, _ in verdicts}
    return frozenset(
        p for p in points if p.session not in judged or judge(p.name in v for s, v in verdicts if s == p.session)
    )


def names(things: frozenset[Any]) -> Names:
    return frozenset(thing.name for thing in things)


def show(things: Names) -> str:
    return "{" + " ".join(sorted(things)) + "}"


def chunks_of(packs: frozenset[Pack], without: Names = NONE) -> Names:
    return NONE.union(*(pack.chunks for pack in packs if pack.name not in without))


def packs_of(condemned: frozenset[Condemned]) -> Names:
    return NONE.union(*(c.packs for c in condemned))


def needs_of(points: frozenset[Point]) -> Names:
    return NONE.union(*(point.needs for point in points))


def without_point(store: Store, name: str) -> Store:
    return store._replace(points=frozenset(p for p in store.points if p.name != name))


def without_session(store: Store, name: str) -> Store:
    return store._replace(sessions=frozenset(s for s in store.sessions if s[0] != name))
