"""The roles that a class can be registered for, and what such a class must have."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from pydantic import BaseModel

from vbackup.api import Codec, Executor, Hypervisor, PluginError, Target, Transport

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Role:
    """One role: its name in the plural, its protocol, and the keys of the YAML that are not the plugin's."""

    name: str
    protocol: type
    reserved: frozenset[str] = frozenset({"type"})

    @property
    def hook(self) -> str:
        """The hook that registers classes of this role."""
        return f"vbackup_register_{self.name}"

    def check(self, cls: object) -> type:
        """Return ``cls`` if it can take this role. Raises `PluginError` saying what it lacks."""
        if not inspect.isclass(cls):
            raise PluginError(f"{self.hook} must register classes, not {type(cls).__name__}")
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(f"class {cls.__qualname__} has no usable `name` (lower-case letters, digits and . _ -)")
        options = getattr(cls, "options", None)
        if not (inspect.isclass(options) and issubclass(options, BaseModel)):
            raise PluginError(f"class {cls.__qualname__} has no `options` (a pydantic model)")
        if taken := sorted(self.reserved & options.model_fields.keys()):
            raise PluginError(f"the options of {cls.__qualname__} use a key that is vbackup's own: {', '.join(taken)}")
        if missing := sorted(member for member in self._members() if not hasattr(cls, member)):
            raise PluginError(f"class {cls.__qualname__} is not of {self.name}: it lacks {', '.join(missing)}")
        return cls

    def _members(self) -> list[str]:
        # Properties are left out: an instance may well set them as plain attributes.
        methods = [name for name, member in vars(self.protocol).items() if inspect.isfunction(member)]
        return [*(name for name in methods if not name.startswith("_")), *inspect.get_annotations(self.protocol)]


ROLES = (
    Role("hypervisors", Hypervisor),
    Role("transports", Transport, frozenset({"type", "retry", "limit", "parallel", "cache", "read_only", "log"})),
    Role("codecs", Codec),
    Role("targets", Target, frozenset({"type", "transport", "codecs", "key"})),
    Role("executors", Executor),
)
