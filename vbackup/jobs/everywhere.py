"""Doing the same in several targets: what can be done is done, and what could not be reached is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vbackup.api import Interrupted, Unavailable, VBackupError


def in_each(what: str, away: Mapping[str, VBackupError], works: Mapping[str, Callable[[], None]]) -> None:
    """Do the work of each target, by alias, whatever the others raise; then raise what kept it from being done in all.

    ``what`` is done, for people (``deleted``). ``away`` are targets that could not even be asked what they have.
    Raises: `Unavailable`, or the error itself where nothing was done; `Interrupted`.
    """
    failures = dict(away)
    for alias, work in works.items():
        try:
            work()
        except Interrupted:
            raise
        except VBackupError as error:
            failures[alias] = error
    if not failures:
        return
    done = [alias for alias in works if alias not in failures]
    if not done and not away:
        raise next(iter(failures.values()))
    so_far = f"{what} in {', '.join(done)}" if done else "nothing was done"
    failed = [f"not {what} in target {alias}: {error.message}" for alias, error in failures.items()]
    raise Unavailable(
        "; ".join(failed),
        hint=f"{so_far}; run it again when all can be reached",
        transient=False,
    )
