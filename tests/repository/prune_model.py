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
from itertools import chain, combinations
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


def believe(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says("does not ask, the point is stored"), store, me.on()._replace(note="promised")


def take_back(me: Process, store: Store, rules: Rules) -> Iterator[Step]:
    yield me.says("delete its point"), without_point(store, me.name), me._replace(plan=("leave",))


def without_point(store: Store, name: str) -> Store:
    return store._replace(points=frozenset(p for p in store.points if p.name != name))


def leave(me: Process, store: Store, _: Rules) -> Iterator[Step]:
    yield me.says(f"delete sessions/{me.name}/*"), without_session(store, me.name), me.on()


def without_session(store: Store, name: str) -> Store:
    return store._replace(sessions=frozenset(s for s in store.sessions if s[0] != name))


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


# -- what must hold ---------------------------------------------------------------------------------------------------

State = tuple[Store, tuple[Process, ...]]


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


# -- scenarios --------------------------------------------------------------------------------------------------------


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


# -- mutations --------------------------------------------------------------------------------------------------------


def without(plan: tuple[str, ...], *steps: str) -> tuple[str, ...]:
    return tuple(step for step in plan if step not in steps)


def moved(plan: tuple[str, ...], step: str, before: str) -> tuple[str, ...]:
    rest = without(plan, step)
    i = rest.index(before)
    return (*rest[:i], step, *rest[i:])


def instead(plan: tuple[str, ...], step: str, *others: str) -> tuple[str, ...]:
    i = plan.index(step)
    return (*plan[:i], *others, *plan[i + 1 :])


PROTOCOL = Rules()
_W, _P, _C, _E = PROTOCOL.writer, PROTOCOL.condemner, PROTOCOL.completer, PROTOCOL.ender
LOST, BROKEN_WORD, ALARM, LEFT = (
    "which no pack has",
    "was stored, and does not count",
    "takes for lost",
    "left for ever",
)

MUTATIONS: dict[str, tuple[Rules, str, str]] = {
    "packs are deleted as soon as they are condemned": (
        Rules(completer=("pick", "delete_packs", "forget")), "garbage", LOST),
    "no second look at what is needed": (Rules(completer=("wait", "delete_packs", "forget")), "garbage", LOST),
    "a condemnation waits for no session": (Rules(completer=instead(_C, "wait", "pick")), "garbage", LOST),
    "points are listed before sessions": (
        Rules(completer=("list_points", "list_ended", "wait", *_C[3:])), "garbage", LOST),
    "packs are listed before points": (
        Rules(completer=(_C[0], "list_condemned", "list_packs", "list_points", "list_ended", *_C[5:])), "chain", ALARM),
    "packs are listed before condemned": (
        Rules(completer=moved(_C, "list_packs", "list_condemned")), "two prunes", LOST),
    "condemned packs count as copies that survive": (Rules(counts_condemned=True), "both copies condemned", LOST),
    "what is needed is condemned no more, not copied": (Rules(rescues=False), "late condemnation", LOST),
    "the condemnation is deleted before its packs": (
        Rules(completer=moved(_C, "forget", "delete_packs")), "late completion", LOST),
    "the condemnation is never deleted": (Rules(completer=without(_C, "forget")), "garbage", LEFT),
    "packs are named by their content": (Rules(packs_named_by_content=True), "two prunes", LOST),
    "a writer begins to live after it looked": (Rules(writer=without(_W, "announce")), "garbage", LOST),
    "a writer names condemnations that it saw at last": (
        Rules(writer=instead(_W, "commit", "tell_again", "commit")), "garbage", LOST),
    "a writer builds on condemned packs": (Rules(builds_on_condemned=True), "garbage", LOST),
    "a writer lists packs before condemned": (
        Rules(writer=moved(_W, "list_packs", "list_condemned")), "late completion", LOST),
    "a writer finds its base before it lists condemned": (
        Rules(writer=moved(_W, "list_base", "list_condemned")), "chain", LOST),
    "a writer builds on any base": (Rules(base="trusted"), "both copies condemned", LOST),
    "a writer builds on bases that are clean of each condemnation": (
        Rules(base="clean", writer=instead(_W, "commit", "list_condemned", "commit")), "both copies condemned", LOST),
    "a writer ends its session before it commits": (Rules(writer=moved(_W, "leave", "commit")), "garbage", LOST),
    "a writer does not ask whether it was ended": (
        Rules(writer=instead(_W, "check", "believe")), "garbage", BROKEN_WORD),
    "a writer asks whether it was ended before it commits": (
        Rules(writer=moved(_W, "check", "commit")), "garbage", BROKEN_WORD),
    "readers do not look at ended": (Rules(verdicts="none"), "garbage", LOST),
    "one ended/SID/EID that names a point is enough": (Rules(verdicts="any"), "ended twice", LOST),
    "ended/SID/1 for all, overwritten": (Rules(ender=instead(_E, "judge", "overwrite")), "ended twice", LOST),
    "sessions are removed and not ended": (Rules(ender=without(_E, "list_points", "judge")), "garbage", LOST),
    "sessions are removed before they are ended": (Rules(ender=moved(_E, "remove", "judge")), "garbage", LOST),
    "sessions are ended and not removed": (Rules(ender=without(_E, "remove")), "garbage", LEFT),
    "ended/SID/0 is not put": (Rules(ender=without(_E, "bar")), "garbage", BROKEN_WORD),
    "ended/SID/0 is put after points are listed": (
        Rules(ender=moved(_E, "list_points", "bar")), "garbage", BROKEN_WORD),
}  # fmt: skip
"""What is changed: the rules then, a scenario that shows the harm, and the harm."""

FREEDOMS: dict[str, Rules] = {
    "a session that was ended shows up again": Rules(writer=instead(_W, "tell", "tell", "tell")),
    "phase one copies nothing": Rules(condemner=without(_P, "list_points", "list_ended")),
    "phase one condemns what is condemned": Rules(condemner=without(_P, "list_condemned")),
    "phase two lists condemned before points": Rules(completer=moved(_C, "list_condemned", "list_points")),
    "writers look at packs and for their base late": Rules(writer=moved(_W, "tell", "list_packs")),
    "writers look for their base late": Rules(writer=moved(_W, "tell", "list_base")),
    "a writer leaves its point that does not count": Rules(writer=instead(_W, "check", "check_only")),
}
"""What makes no difference to any promise."""


def main() -> None:
    for name, state in scenarios(PROTOCOL).items():
        print(f"{name}: {explore(state, PROTOCOL)}")
    for name, (rules, where, _) in MUTATIONS.items():
        print(f"\nif {name} ({where}): {explore(scenarios(rules)[where], rules)}")


if __name__ == "__main__":
    main()
