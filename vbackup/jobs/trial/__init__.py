"""A trial of a configured transport, on the place where it keeps its objects: what it can do, and how fast it is.

It may be run beside a live repository: everything is below ``trial/``, which no target looks at, and is removed in the
end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from vbackup.api import Interrupted, Transport, VBackupError
from vbackup.api.wrapper import Wrapper
from vbackup.jobs.site import Site
from vbackup.jobs.trial.answers import Answer, Outcome, Verdict, fails
from vbackup.jobs.trial.ground import Ground, Speed
from vbackup.jobs.trial.promises import PROMISES, basics
from vbackup.jobs.trial.speed import MIB, large_objects, small_objects
from vbackup.wrappers.retry import RetryingTransport

__all__ = ["Answer", "Outcome", "Result", "Speed", "Verdict", "amount", "try_transport"]

_log = logging.getLogger(__name__)
_BESIDE = 24
"""MiB that are written at most, beside the large objects."""


@dataclass(frozen=True)
class Result:
    """What came of a trial."""

    outcomes: tuple[Outcome, ...]
    speeds: tuple[Speed, ...]
    left: tuple[str, ...]
    """Objects that could not be removed, each with the reason."""
    whole: bool
    """Whether everything was tried."""

    @property
    def failed(self) -> bool:
        """Whether the store does not do what vbackup needs, or says that it does."""
        return any(outcome.verdict is Verdict.FAILS for outcome in self.outcomes)


def amount(size: int) -> int:
    """Return how many bytes a trial with ``size`` MiB of large objects writes at most, all in all."""
    return (size + _BESIDE) * MIB


def try_transport(site: Site, alias: str, size: int, tell: Callable[[Outcome], None]) -> Result:
    """Try everything, with ``size`` MiB of large objects; ``tell`` hears of each outcome when it is known.

    Raises: `ConfigError`; what the store raises where it cannot even be listed; `Interrupted`. Whatever is raised,
    what was put is removed.
    """
    patient = site.transport(alias)
    ground = Ground(_without_retries(patient), patient, lambda: site.new_transport(alias), site.stop)
    ground.remove_abandoned()
    outcomes: list[Outcome] = []
    trials: dict[str, Callable[[Ground], Answer]] = {
        "put, get and delete": basics,
        **PROMISES,
        "small objects and listing": small_objects,
        "large objects": lambda ground: large_objects(ground, size),
    }
    try:
        for name, trial in trials.items():
            outcomes.append(outcome := Outcome(name, _answer(trial, ground)))
            tell(outcome)
            if trial is basics and outcome.verdict is Verdict.FAILS:
                break
        left = ground.remove()
    except BaseException:  # also when we are stopped, while removing too
        for remains in ground.remove():
            _log.warning("not removed: %s", remains)
        raise
    return Result(tuple(outcomes), tuple(ground.speeds), tuple(left), whole=len(outcomes) == len(trials))


def _answer(trial: Callable[[Ground], Answer], ground: Ground) -> Answer:
    try:
        return trial(ground)
    except Interrupted:
        raise
    except VBackupError as error:
        return fails(f"{error.kind}: {error.message}", error.hint)


def _without_retries(transport: Transport) -> Transport:
    """Return what is below the retries, which would hide what the store does; limits stay."""
    wrapper = transport
    while isinstance(wrapper, Wrapper):
        if isinstance(wrapper, RetryingTransport):
            return wrapper.inner
        wrapper = wrapper.inner
    return transport
