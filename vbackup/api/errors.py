"""The one exception tree.

::

    VBackupError
    ├── ConfigError          the YAML, an option or an argument is wrong (exit code 2)
    ├── NotFound             a machine, restore point, object or repository that is not there
    ├── Locked               an object that its store keeps from being deleted before a date
    ├── AlreadyExists        something is there that must not be overwritten
    ├── AccessDenied         credentials or permissions do not suffice
    │   └── WrongKey         the key does not open this repository
    ├── NoSpace              a store, scratch or destination file system is full
    ├── Unavailable          a hypervisor or store that cannot be reached now (transient)
    ├── Busy                 somebody else holds what we need (transient)
    ├── CaptureLost          the capture ended under us: nothing of it may be kept (transient)
    ├── GuestError           the guest did not do what was asked of it (freeze, thaw)
    ├── Corrupt              stored bytes are not the bytes that were written
    ├── Unsupported          this cannot be done here
    ├── PluginError          a plugin broke its contract or could not be loaded
    └── Interrupted          the user or the system asked us to stop

Kinds, not strings, decide what callers do. ``transient`` is decided where an error is raised: trying the same
thing again later may well succeed.
"""

from __future__ import annotations

from typing import ClassVar


class VBackupError(Exception):
    """Something the user must know: what happened, to what, and what to do next.

    ``message`` names the machine, disk or object. ``hint`` says what to do, or is empty. Never put a secret in
    either of them.
    """

    kind: ClassVar[str] = "error"
    default_transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", transient: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.transient = self.default_transient if transient is None else transient

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(VBackupError):
    """The YAML, an option or an argument is wrong; nothing was started."""

    kind = "config"


class NotFound(VBackupError):  # noqa: N818 - named for what happened; the tree has one suffix-free style
    """A machine, restore point, object or repository is not there."""

    kind = "not-found"


class AlreadyExists(VBackupError):  # noqa: N818
    """Something is there that must not be overwritten."""

    kind = "already-exists"


class Locked(VBackupError):  # noqa: N818
    """The store keeps an object from being deleted or replaced before a date."""

    kind = "locked"


class AccessDenied(VBackupError):  # noqa: N818
    """Credentials or permissions do not suffice."""

    kind = "access-denied"


class WrongKey(AccessDenied):
    """The key does not open this repository."""

    kind = "wrong-key"


class NoSpace(VBackupError):  # noqa: N818
    """A store, the scratch space or a destination is full."""

    kind = "no-space"


class Unavailable(VBackupError):  # noqa: N818
    """A hypervisor or store cannot be reached now.

    ``retry_after`` is how many seconds the other side asked us to stay away, where it said so (``Retry-After`` of
    RFC 9110, a rate limit): everybody who uses it should, not only who was told.
    """

    kind = "unavailable"
    default_transient = True

    def __init__(
        self, message: str, *, hint: str = "", transient: bool | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint, transient=transient)
        self.retry_after = retry_after


class Busy(VBackupError):  # noqa: N818
    """Somebody else holds what we need."""

    kind = "busy"
    default_transient = True


class CaptureLost(VBackupError):  # noqa: N818
    """The capture ended under us; nothing of it may be kept."""

    kind = "capture-lost"
    default_transient = True


class GuestError(VBackupError):
    """The guest did not do what was asked of it."""

    kind = "guest"


class Corrupt(VBackupError):  # noqa: N818
    """Stored bytes are not the bytes that were written. Never raised for an error of the store itself."""

    kind = "corrupt"


class Unsupported(VBackupError):  # noqa: N818
    """This cannot be done here."""

    kind = "unsupported"


class PluginError(VBackupError):
    """A plugin broke its contract or could not be loaded."""

    kind = "plugin"


class Interrupted(VBackupError):  # noqa: N818
    """The user or the system asked us to stop."""

    kind = "interrupted"
