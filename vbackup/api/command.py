"""Commands that plugins add to ``vbackup``: click commands or groups, registered by `vbackup_register_commands`.

A command's name is what stands after ``vbackup``. It gets its context with ``@click.pass_obj``, and ends as vbackup's
own do: by returning an exit code (None is 0), or by raising one of `vbackup.api.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vbackup.api.hypervisor import Hypervisor


class CommandContext(Protocol):
    """What a plugin's command gets of vbackup."""

    @property
    def json(self) -> bool:
        """Whether the user wants JSON (``vbackup --json NAME``), and nothing else, on stdout."""

    def hypervisors(self, kind: str) -> Mapping[str, Hypervisor]:
        """Return the configured hypervisors of a ``type:`` by their names, made when they are asked for.

        They are closed when the command ends. Raises: `ConfigError` when there is no usable configuration.
        """

    def write(self, line: str) -> None:
        """Print to stdout, with everything that a terminal would obey made visible."""
