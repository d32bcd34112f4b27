"""The processes of the model of prune_model.py, and each step that they may take."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any, NamedTuple

from tests.repository.prune_states import (
    NONE,
    Condemned,
    Names,
    Pack,
    Point,
    Rules,
    Step,
    Store,
    chunks_of,
    counting,
    names,
    needs_of,
    packs_of,
    show,
    without_point,
    without_session,
)


class Memory(NamedTuple):
    """What listings showed, and what was decided on."""

    packs: frozenset[Pack] = frozenset()
    points: frozenset[Point] = frozenset()
    condemned: frozenset[Condemned] = frozenset()
    base: Point | None = None
    subject: Any = None  # the condemnation or the session at work on
    chosen: Names = NONE


class Process(NamedTuple):
    name: str
    kind: str
    plan: tuple[str, ...]
    content: Names = NONE  # what a writer has to back up
    based: bool = False
    memory: Memory = Memory()
    note: str = ""  # "promised": the writer said that its point is stored; "alarm": a prune found no copy

    def steps(self, store: Store, rules: Rules) -> Iterator[Step]:
        if self.plan:
            yield from STEPS[self.plan[0]](self, store, rules)

    def on(self, **learnt: Any) -> Process:
        """The next step; after the last one nothing is remembered."""
        plan = self.plan[1:]
        return self._replace(plan=plan, memory=self.memory._replace(**learnt) if plan else Memory())

    def says(self, what: str) -> str:
        return f"{self.kind} {self.name}: {what}"


# -- listings ---------------------------------------------------------------------------------------------------------


def list_condemned(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says(f"list condemned: {show(names(store.condemned))}"), store, me.on(condemned=store.condemned)


def list_packs(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says(f"list packs: {show(names(store.packs))}"), store, me.on(packs=store.packs)


def list_points(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says(f"list points: {show(names(store.points))}"), store, me.on(points=store.points)


def list_ended(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    points = counting(me.memory.points, store.verdicts, rules)
    yield me.says(f"list ended: points that count are {show(names(points))}"), store, me.on(points=points)


# -- writers ----------------------------------------------------------------------------------------------------------


def announce(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says(f"put sessions/{me.name}/0"), store._replace(sessions=store.sessions | {(me.name, None)}), me.on()


def list_base(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    points = sorted(counting(store.points, store.verdicts, rules)) if me.based else []
    for base in points:
        yield me.says(f"find base {base.name}"), store, me.on(base=base)
    if not points:
        yield from me.on().steps(store, rules)


def tell(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    known = names(me.memory.condemned)
    told = without_session(store, me.name).sessions | {(me.name, known)}
    yield me.says(f"put sessions/{me.name}/N naming {show(known)}"), store._replace(sessions=told), me.on()


def tell_again(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    yield from tell(me._replace(memory=me.memory._replace(condemned=store.condemned)), store, rules)


def can_build(memory: Memory, rules: Rules) -> bool:
    if memory.base is None:
        return False
    if rules.base == "clean":
        return all(is_clean(memory.base, c) for c in memory.condemned)
    checked = not memory.condemned or memory.base.needs <= chunks_of(memory.packs, packs_of(memory.condemned))
    return checked or rules.base == "trusted"


def is_clean(base: Point, condemned: Condemned) -> bool:
    return base.name in condemned.points or condemned.name in base.clean


def store_chunks(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    """Store what is neither in packs to build on nor in a base to build on."""
    memory = me.memory
    usable = frozenset(p for p in memory.packs if rules.builds_on_condemned or p.name not in packs_of(memory.condemned))
    base = memory.base if can_build(memory, rules) else None
    used = names(frozenset(p for p in usable if p.chunks & me.content))
    new = me.content - chunks_of(usable) - (base.needs if base else NONE)
    pack = new_pack(me, new, rules)
    after = Memory()
    if rules.base == "clean":  # what the point says is clean takes all this; nothing else does
        after = memory._replace(base=base, chosen=used | ({pack.name} if new else NONE), packs=frozenset())
    mine = me._replace(plan=me.plan[1:], memory=after)
    if new:
        yield me.says(f"put pack {pack.name}"), store._replace(packs=store.packs | {pack}), mine
    else:
        yield from mine.steps(store, rules)


def new_pack(me: Process, chunks: Names, rules: Rules) -> Pack:
    return Pack("of " + "".join(sorted(chunks)) if rules.packs_named_by_content else f"new-{me.name}", chunks)


def commit(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    base, used = me.memory.base, me.memory.chosen
    clean = names(
        frozenset(c for c in me.memory.condemned if not c.packs & used and (base is None or is_clean(base, c)))
    )
    point = Point(me.name, me.name, me.content, clean)
    yield me.says(f"put point {point.name}"), store._replace(points=store.points | {point}), me.on()


def check(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    if me.name in store.barred:
        yield me.says(f"get ended/{me.name}/0: there"), store, me._replace(plan=("take_back", *me.plan[1:]))
    else:
        yield (
            me.says(f"get ended/{me.name}/0: not there, the point is stored"),
            store,
            me.on()._replace(note="promised"),
        )


def check_only(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    for said, after, mine in check(me, store, rules):
        yield said, after, mine._replace(plan=without(mine.plan, "take_back"))


def without(plan: tuple[str, ...], *steps: str) -> tuple[str, ...]:
    return tuple(step for step in plan if step not in steps)


def believe(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says("does not ask, the point is stored"), store, me.on()._replace(note="promised")


def take_back(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    yield me.says("delete its point"), without_point(store, me.name), me._replace(plan=("leave",))


def leave(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says(f"delete sessions/{me.name}/*"), without_session(store, me.name), me.on()


# -- retention, and the ends of sessions ------------------------------------------------------------------------------


def delete_point(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    for point in sorted(counting(store.points, store.verdicts, rules)):
        yield me.says(f"delete point {point.name}"), without_point(store, point.name), me.on()


def look(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    for name in sorted({name for name, _ in store.sessions}):
        yield me.says(f"list sessions, give up {name}"), store, me.on(subject=name)


def bar(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield (
        me.says(f"put ended/{me.memory.subject}/0"),
        store._replace(barred=store.barred | {me.memory.subject}),
        me.on(),
    )


def judge(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    points = names(frozenset(p for p in me.memory.points if p.session == me.memory.subject))
    verdict = (me.memory.subject, points)
    yield (
        me.says(f"put ended/{me.memory.subject}/EID naming {show(points)}"),
        store._replace(verdicts=store.verdicts | {verdict}),
        me.on(),
    )


def overwrite(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    cleared = store._replace(verdicts=frozenset(v for v in store.verdicts if v[0] != me.memory.subject))
    yield from judge(me, cleared, rules)


def remove(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says(f"delete sessions/{me.memory.subject}/*"), without_session(store, me.memory.subject), me.on()


# -- prunes -----------------------------------------------------------------------------------------------------------


def choose(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    """Choose any packs, and copy what is needed of them."""
    memory = me.memory
    free = sorted(names(memory.packs) - packs_of(memory.condemned))
    for chosen in chain.from_iterable(combinations(free, n) for n in range(1, len(free) + 1)):
        mine = me.on(chosen=frozenset(chosen), packs=frozenset(), condemned=frozenset())
        surviving = chunks_of(memory.packs, packs_of(memory.condemned) | mine.memory.chosen)
        lost = needs_of(memory.points) & (chunks_of(memory.packs) - surviving)
        if lost:
            copy = new_pack(me, lost, rules)
            said = f"choose {show(mine.memory.chosen)}, put copies {copy.name}"
            yield me.says(said), store._replace(packs=store.packs | {copy}), mine
        else:
            yield from mine.steps(store, rules)


def condemn(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    points = names(me.memory.points) if rules.base == "clean" else NONE
    made = Condemned(f"C-{me.name}", me.memory.chosen, points)
    said = f"put condemned/{made.name}: {show(made.packs)}" + (f", points before {show(points)}" if points else "")
    yield me.says(said), store._replace(condemned=store.condemned | {made}), me.on()


def pick(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    for c in sorted(store.condemned, key=lambda c: c.name):
        yield me.says(f"find {c.name}"), store, me.on(subject=c, chosen=c.packs)


def wait(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    """Go on with a condemnation that every session has named."""
    for _, _, mine in pick(me, store, rules):
        name = mine.memory.subject.name
        if all(named is not None and name in named for _, named in store.sessions):
            yield me.says(f"list sessions: {name} need not wait"), store, mine


def rescue(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    """Copy what points need and no pack has that will stay."""
    memory = me.memory
    avoided = memory.subject.packs | (NONE if rules.counts_condemned else packs_of(memory.condemned))
    lost = needs_of(memory.points) - chunks_of(memory.packs, avoided)
    found = lost & chunks_of(memory.packs)
    mine = me.on(packs=frozenset(), points=frozenset(), condemned=frozenset())
    if any(point.needs & (lost - found) for point in memory.points & counting(store.points, store.verdicts, rules)):
        yield me.says(f"find {show(lost - found)} in no pack"), store, me._replace(plan=(), note="alarm")
    elif found and not rules.rescues:
        yield take_condemnation_back(me, mine, store, found)
    elif found:
        copy = new_pack(me, found, rules)
        yield me.says(f"put copies {copy.name}"), store._replace(packs=store.packs | {copy}), mine
    else:
        yield from mine.steps(store, rules)


def take_condemnation_back(me: Process, mine: Process, store: Store, found: Names) -> Step:
    before = me.memory.subject
    left = before.packs - names(frozenset(p for p in me.memory.packs if p.chunks & found))
    condemned = frozenset(c for c in store.condemned if c.name != before.name) | {before._replace(packs=left)}
    mine = mine._replace(memory=mine.memory._replace(chosen=left))
    return me.says(f"condemn {show(before.packs - left)} no more"), store._replace(condemned=condemned), mine


def delete_packs(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    """Delete one after the other, whoever else may have."""
    if not me.memory.chosen:
        yield from me.on().steps(store, rules)
        return
    name, *rest = sorted(me.memory.chosen)
    packs = frozenset(p for p in store.packs if p.name != name)
    after = me._replace(memory=me.memory._replace(chosen=frozenset(rest))) if rest else me.on(chosen=NONE)
    yield me.says(f"delete pack {name}"), store._replace(packs=packs), after


def forget(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    name = me.memory.subject.name
    condemned = frozenset(c for c in store.condemned if c.name != name)
    yield me.says(f"delete condemned/{name}"), store._replace(condemned=condemned), me.on()


_STEPS = (
    list_condemned, list_packs, list_points, list_ended,
    announce, list_base, tell, tell_again, store_chunks, commit, check, check_only, believe, take_back, leave,
    delete_point, look, bar, judge, overwrite, remove,
    choose, condemn, pick, wait, rescue, delete_packs, forget,
)  # fmt: skip
STEPS = {step.__name__: step for step in _STEPS}

State = tuple[Store, tuple[Process, ...]]
