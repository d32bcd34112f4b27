"""Commands of plugins: where they are found, and what they get of vbackup."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from vbackup.cli import output, stdout
from vbackup.cli.state import State

if TYPE_CHECKING:
    from vbackup.api import Hypervisor
    from vbackup.jobs.site import Site


class Context:
    """The `CommandContext` of one command. What it opens is closed with the context of click."""

    def __init__(self, state: State, context: click.Context) -> None:
        self._state = state
        self._context = context
        self._site: Site | None = None

    @property
    def json(self) -> bool:
        """See `CommandContext.json`."""
        return self._state.json

    def hypervisors(self, kind: str) -> Mapping[str, Hypervisor]:
        """See `CommandContext.hypervisors`."""
        if self._site is None:
            self._site = self._context.with_resource(self._state.site())
        return _OfType(self._site, kind)

    def write(self, line: str) -> None:
        """See `CommandContext.write`."""
        output.lines(line)


class _OfType(Mapping[str, "Hypervisor"]):
    """Configured hypervisors of one type; each is made when it is first looked up."""

    def __init__(self, site: Site, kind: str) -> None:
        self._site = site
        self._names = [alias for alias, entry in site.config.hypervisors.items() if entry.type == kind]

    def __getitem__(self, alias: str) -> Hypervisor:
        from vbackup.guards.hypervisor import GuardedHypervisor

        if alias not in self._names:
            raise KeyError(alias)
        guarded = self._site.hypervisor(alias)
        return guarded.inner if isinstance(guarded, GuardedHypervisor) else guarded  # a plugin knows its own class

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def commands(context: click.Context) -> Mapping[str, click.Command]:
    """Return the commands that plugins bring, by name. Raises: `PluginError`."""
    if not logging.getLogger().handlers:  # the options are not read yet, and a broken plugin must be told of
        output.start_logging(0)
    found = context.ensure_object(State).registry().commands
    stdout.share()  # a command is asked for: what it prints is what was asked for
    return found
