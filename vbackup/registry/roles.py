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
    needs_defaults: bool = False
    """Whether instances are also made without options: what was encoded must be decoded whatever is configured."""

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
        if self.needs_defaults and (
            required := [key for key, each in options.model_fields.items() if each.is_required()]
        ):
            raise PluginError(
                f"the options of {cls.__qualname__} must all have defaults, as {self.name} are made without any: "
                f"{', '.join(required)}"
            )
        if missing := sorted(member for member in self._members() if not hasattr(cls, member)):
            raise PluginError(f"class {cls.__qualname__} is not of {self.name}: it lacks {', '.join(missing)}")
        for flag in self._flags():
            if not isinstance(getattr(cls, flag), bool):
                raise PluginError(f"`{flag}` of class {cls.__qualname__} must be True or False")
        return cls

    def _flags(self) -> list[str]:
        return [name for name, kind in inspect.get_annotations(self.protocol).items() if kind == "ClassVar[bool]"]

    def _members(self) -> list[str]:
        # Properties are left out: an instance may well set them as plain attributes.
        methods = [name for name, member in vars(self.protocol).items() if inspect.isfunction(member)]
        return [*(name for name in methods if not name.startswith("_")), *inspect.get_annotations(self.protocol)]


ROLES = (
    Role("hypervisors", Hypervisor),
    Role("transports", Transport, frozenset({"type", "retry", "limit", "parallel", "cache", "read_only", "log"})),
    Role("codecs", Codec, needs_defaults=True),
    Role("targets", Target, frozenset({"type", "transport", "codecs", "key"})),
    Role("executors", Executor),
)
