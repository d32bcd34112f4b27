"""What all commands share: the options before the command, and how to get at the configured site."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vbackup.cli import stdout

if TYPE_CHECKING:
    from vbackup.jobs.site import Site
    from vbackup.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class State:
    """The options that stand before (or, for ``--json``, also after) the command."""

    config: Path | None = None
    json: bool = False
    on_stop: list[Callable[[], None]] = field(default_factory=list)
    """What makes threads end their work: called, from a thread, when we are asked to stop."""
    _registry: Registry | None = None

    @property
    def loaded(self) -> Registry | None:
        """The plugins, if they were loaded."""
        return self._registry

    def registry(self) -> Registry:
        """Load the plugins, once; from then on stdout is ours alone. Raises: `PluginError`."""
        if self._registry is None:
            from vbackup.registry import Registry

            stdout.keep()
            self._registry = Registry.load()
        return self._registry

    @contextmanager
    def site(self, registry: Registry | None = None) -> Iterator[Site]:
        """Open what is configured, for the time of the context. Raises: `ConfigError`, `PluginError`."""
        from vbackup.config import find, load
        from vbackup.jobs.site import Site

        registry = registry or self.registry()
        with Site(load(find(self.config), registry), registry) as site:
            self.on_stop.append(site.stop.set)
            gc.freeze()
            gc.enable()
            yield site


def json_option(function: F) -> F:
    """Add ``--json``: it may stand before the command or after it."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001, FBT001
        if value:
            context.ensure_object(State).json = True

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=remember, help="Print JSON, for programs."
    )(function)
