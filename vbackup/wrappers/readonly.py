"""A store in which nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from vbackup.api import AccessDenied, Finding, Level, Transport, VBackupError
from vbackup.api.wrapper import Wrapper

T = TypeVar("T")
_CHANGES = frozenset({"create", "put", "delete", "lock"})


class ReadOnlyTransport(Wrapper):
    """Refuses what would change the store, without asking it.

    It keeps this installation from a mistake. What may not be changed by anybody, the store itself must refuse: with
    credentials that only read. Programs that get files by their paths (see `root`) are not kept from writing: targets
    that do are refused with such a transport.
    """

    name: ClassVar[str] = "read_only"

    def __init__(self, inner: Transport, alias: str) -> None:
        """Wrap ``inner``, whose name in the configuration is ``alias``."""
        super().__init__(inner)
        self._alias = alias

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Act if that changes nothing. Raises: `AccessDenied`."""
        if operation in _CHANGES:
            raise AccessDenied(
                f"{operation} {key}".rstrip() + f": transport {self._alias} is for reading only",
                hint="the configuration says `read_only: true`",
            )
        return action()

    def check(self) -> Sequence[Finding]:
        """Look whether it can be listed: the inner transport's own check writes, or would miss that it cannot."""
        what = f"transport {self._alias}"
        store = self.inner
        while isinstance(store, Wrapper):
            store = store.inner  # wrappers would read the listing to its end
        try:
            next(iter(store.list()), None)
        except VBackupError as error:
            return [Finding(what, Level.ERROR, error.message, error.hint or "check the store, and the credentials")]
        return [Finding(what, Level.OK, "it can be listed; it is for reading only, so nothing was written")]
