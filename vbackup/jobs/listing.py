"""What the hypervisors of a site list, and which machines cannot be told from each other by it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from vbackup.api import ConfigError, Interrupted, MachineRef, PluginError, VBackupError
from vbackup.jobs.site import Site

log = logging.getLogger(__name__)


class Listing:
    """What the hypervisors list, each asked once."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._listed: dict[str, list[MachineRef] | VBackupError] = {}
        self._alike: dict[str, Mapping[str, VBackupError]] = {}

    def of(self, alias: str) -> list[MachineRef] | VBackupError:
        """Return a hypervisor's machines, or why it cannot be asked."""
        if alias not in self._listed:
            try:
                self._listed[alias] = list(self._site.hypervisor(alias).machines())
            except ConfigError:
                raise
            except Interrupted as error:
                if self._site.stop.is_set():
                    raise
                self._listed[alias] = PluginError(f"{alias}: stopped, and nobody had stopped it: {error.message}")
            except VBackupError as error:  # the others' machines must not suffer for it
                self._listed[alias] = error
            except Exception as error:  # a plugin's own: nor for that
                log.debug("listing the machines of %s", alias, exc_info=True)
                self._listed[alias] = self._site.registry.explained(error, alias)
        return self._listed[alias]

    @property
    def is_whole(self) -> bool:
        """Whether all could be asked so far: else nobody can say that a machine is not there."""
        return not any(isinstance(machines, VBackupError) for machines in self._listed.values())

    def unclear(self, alias: str, machine: MachineRef) -> VBackupError | None:
        """Return why a machine cannot be told from another: the points of both would be one row, for `keep`, too."""
        machines = self.of(alias)
        if isinstance(machines, VBackupError):
            return None
        if alias not in self._alike:
            self._alike[alias] = self._of_one_id(alias, machines)
        return self._alike[alias].get(machine.id)

    def all(self) -> Iterator[tuple[str, MachineRef]]:
        """Yield what was listed."""
        for alias, machines in self._listed.items():
            if not isinstance(machines, VBackupError):
                yield from ((alias, machine) for machine in machines)

    def _of_one_id(self, alias: str, machines: Sequence[MachineRef]) -> Mapping[str, VBackupError]:
        names: dict[str, set[str]] = defaultdict(set)  # a machine that is listed twice is one
        for machine in machines:
            names[machine.id].add(machine.name)
        blame = self._site.blame("hypervisors", alias)
        return {
            id_: PluginError(
                blame.error(
                    f"it lists machines with the same id {id_!r:.80}: {', '.join(sorted(alike))}; their restore points "
                    "could not be told apart"
                ).message,
                hint="if one is a copy of the other, give it an id of its own",
            )
            for id_, alike in names.items()
            if len(alike) > 1
        }
