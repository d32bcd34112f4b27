"""The protocol of prune_model.py, and the protocol with one rule changed."""

from __future__ import annotations

from tests.repository.prune_states import Rules
from tests.repository.prune_steps import without


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
