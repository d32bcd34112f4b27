"""Naming the plugin in whatever its code does wrong."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar

from vbackup.api import PluginError, Unavailable, VBackupError
from vbackup.guards import watch

P = ParamSpec("P")
R = TypeVar("R")
_LONGEST = 1000
"""Characters of a stranger's message that are shown."""
_LONGEST_VALUE = 80


def told(error: BaseException) -> str:
    """Return an exception's type and message on one line, whatever it is: its ``__str__`` may itself raise."""
    name = type(error).__name__
    try:
        text = " ".join((_fields(error) or str(error)).split())[:_LONGEST]
    except BaseException:  # noqa: BLE001 - a stranger's exception may do anything when it is shown
        return f"{name} (which cannot be shown)"
    return f"{name}: {text}" if text else name


def _fields(error: BaseException) -> str:
    """Return, of a pydantic error, what is wrong with each field, without the values: one may be a secret."""
    if type(error).__name__ != "ValidationError":
        return ""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return ""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)


def told_value(value: object) -> str:
    """Return a value as Python shows it, shortened: showing it may raise, too."""
    try:
        text = repr(value)
    except BaseException:  # noqa: BLE001 - a stranger's value may do anything when it is shown
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def is_ours(error: BaseException) -> bool:
    """Whether it is the user who stops us, and nothing that a plugin did.

    A signal interrupts the main thread only, and where vbackup handles signals by an exception of its own.
    """
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    ours = type(error).__module__.partition(".")[0] == "vbackup"
    return ours or signal.getsignal(signal.SIGINT) is signal.default_int_handler


@dataclass(frozen=True, slots=True)
class Blame:
    """Who it was."""

    plugin: str
    origin: str
    """The distribution that the plugin is of."""
    builtin: bool
    what: str
    """A part of the site as messages name it: ``transport main (type webdav)``."""

    @property
    def hint(self) -> str:
        """How to go on."""
        without = f"run without it: VBACKUP_DISABLED_PLUGINS={self.plugin}"
        if self.builtin:
            return f"this is a fault of vbackup: update it, or {without}"
        return f"update or remove {self.origin or 'the plugin'}, or {without}"

    def error(self, did: str) -> PluginError:
        """Return the error that says what the plugin did."""
        return PluginError(f"plugin {self.plugin!r}, {self.what}: {did}", hint=self.hint)

    def calling(
        self, method: str, about: str = "", *, raised: Raised | None = None, patience: float | None = None
    ) -> Calling:
        """Return the context of one call. What comes out of it is one of vbackup's errors, or ours.

        ``raised`` remembers what our own code raised that the plugin calls: that passes. After ``patience`` seconds it
        is told that the call takes long.
        """
        return Calling(self, method, about, raised, watch.PATIENCE if patience is None else patience)

    def working(
        self, method: str, lacks: str, *, raised: Raised | None = None, patience: float | None = None
    ) -> Calling:
        """Like `calling`, for one that may go on for hours: ``lacks`` says what it has not done when it takes long.

        A built-in plugin is not told of: what it waits for are calls itself.
        """
        call = self.calling(method, raised=raised, patience=inf if self.builtin else patience)
        call.lacks = lacks
        return call

    def often(self, method: str, action: Callable[P, R]) -> Callable[P, R]:
        """Return ``action``, which is called for each block, with `calling` around it if it is a stranger's."""
        if self.builtin:
            return action

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.calling(method):
                return action(*args, **kwargs)

        return call

    def settled(self, method: str, error: BaseException, raised: Raised | None = None) -> BaseException:
        """Return what is to be raised in place of ``error``, which came out of ``method``."""
        if is_ours(error) or (raised is not None and error is raised.error):
            return error
        known = presentable(error)
        if isinstance(known, Unavailable) and not _is_time(known.retry_after):
            after = told_value(known.retry_after)
            return self.error(f"{method} raised {told(known)}, whose retry_after is {after}, no number of seconds")
        return known or self.error(f"{method} raised {told(error)}")

    def reraise(self, method: str, error: BaseException, raised: Raised | None = None) -> NoReturn:
        """Raise what `settled` returns."""
        settled = self.settled(method, error, raised)
        if settled is error:
            raise error
        raise settled from error


class Raised:
    """Remembers what code of ours raised that a plugin calls."""

    error: BaseException | None = None

    def by(self, action: Callable[P, R]) -> Callable[P, R]:
        """Return ``action``, for a plugin to call."""

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return action(*args, **kwargs)
            except BaseException as error:
                self.error = error
                raise

        return call


class Calling:
    """A call of a plugin that is under way."""

    __slots__ = ("_about", "_blame", "_method", "_raised", "lacks", "since", "told_after")

    def __init__(self, blame: Blame, method: str, about: str, raised: Raised | None, patience: float) -> None:
        self._blame = blame
        self._method = method
        self._about = about
        self._raised = raised
        self.since = 0.0
        """When it began or last showed life, by the monotonic clock; infinite while nobody waits for it."""
        self.told_after = patience
        """Seconds after which it is next told that it takes long."""
        self.lacks = "returned"
        """What it has not done then."""

    def __str__(self) -> str:
        return f"plugin {self._blame.plugin!r}, {self._blame.what}: {self._what}"

    @property
    def _what(self) -> str:
        return f"{self._method} {self._about}".rstrip()

    @property
    def way_out(self) -> str:
        """How to go on if it hangs; nothing for a built-in plugin, which waits for something else."""
        return "" if self._blame.builtin else f" (if it hangs: {self._blame.hint})"

    def __enter__(self) -> Self:
        watch.WATCH.begin(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        watch.WATCH.end(self)
        if error is not None:
            self._blame.reraise(self._what, error, self._raised)


def presentable(error: BaseException) -> VBackupError | None:
    """Return one of vbackup's errors that can be shown: the error itself, or its kind made anew; None for others.

    A class of a stranger's own may be made differently from ours: what it says, and whether it is transient, stays.
    """
    if not isinstance(error, VBackupError):
        return None
    if _is_presentable(error):
        return error
    kind = next(cls for cls in type(error).__mro__ if cls.__module__ == VBackupError.__module__)
    try:
        anew: VBackupError = kind(error.message, hint=error.hint, transient=error.transient)
    except BaseException:  # noqa: BLE001 - a stranger's attributes may do anything
        return None
    return anew if _is_presentable(anew) else None


def _is_time(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def _is_presentable(error: Any) -> bool:
    """Whether an error has what all of vbackup's have, and can be made anew, as another thread does."""
    try:
        texts = (error.message, error.hint, error.kind, str(error))
        type(error)(error.message, hint=error.hint, transient=error.transient)
        if isinstance(error, Unavailable):
            _ = error.retry_after
    except BaseException:  # noqa: BLE001 - a stranger's subclass may do anything
        return False
    return all(isinstance(text, str) for text in texts) and isinstance(error.transient, bool)
