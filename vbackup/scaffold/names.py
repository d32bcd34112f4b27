"""What a new plugin is called, everywhere that it has a name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vbackup.api import AlreadyExists, ConfigError
from vbackup.commands import COMMANDS
from vbackup.scaffold.roles import Role

if TYPE_CHECKING:
    from vbackup.registry import Registry

_PREFIX = re.compile(r"^vbackup[-_.]")
_RULE = (re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?"), 64, "lower-case letters and digits, with . _ - between")
_RULES = {"command": (re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?"), 32, "lower-case letters, then also digits and -")}
"""Those of the registry, and so that a distribution can be called that."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names that follow from ``name``, which is what stands behind ``type:``."""

    name: str

    @classmethod
    def checked(cls, text: str, role: Role) -> Names:
        """Return the names of a new plugin; ``text`` may have ``vbackup-`` before it. Raises: `ConfigError`."""
        name = _PREFIX.sub("", text, count=1)
        rule, most, what = _RULES.get(role.name, _RULE)
        if not rule.fullmatch(name):
            near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            raise ConfigError(
                f"{text!r} cannot be the name of a {role.name}: it must be {what}, {most} characters at the most",
                hint=f"What about {near}?" if rule.fullmatch(near) else "",
            )
        if role.name == "command" and name in COMMANDS:
            raise ConfigError(f"the command {name!r} is one of vbackup's own", hint="Take another name.")
        return cls(name)

    @property
    def distribution(self) -> str:
        """What is installed, as the packaging specifications normalise it."""
        return f"vbackup-{re.sub('[._-]+', '-', self.name)}"

    @property
    def module(self) -> str:
        """What is imported."""
        return f"vbackup_{re.sub('[._-]+', '_', self.name)}"

    def of_class(self, kind: str) -> str:
        """Return the name of a class: ``WebdavTransport`` of the ``kind`` Transport."""
        own = "".join(part.capitalize() for part in re.split("[._-]+", self.name))
        # A class cannot begin with a digit, and pytest would take one that begins with Test for tests.
        return f"{kind}{own}" if own[0].isdigit() or own.startswith("Test") else f"{own}{kind}"


def refuse_taken(names: Names, role: Role, registry: Registry) -> None:
    """Raise `AlreadyExists` when something is installed that a plugin of that name could not stand beside."""
    for plugin in registry.plugins:
        of = "vbackup" if plugin.builtin else plugin.origin
        if plugin.name == names.name:
            raise AlreadyExists(f"there is a plugin {names.name!r} already, of {of}", hint="Take another name.")
        if names.name in plugin.roles.get(role.plural, ()):
            raise AlreadyExists(
                f"there is a {role.name} {names.name!r} already, of the plugin {plugin.name!r} of {of}",
                hint="Take another name.",
            )
    if find_spec(names.module) is not None:
        raise AlreadyExists(f"there is a package {names.module} already", hint="Take another name.")
