"""Whether a target has the restore points that it took: one that lies is found out at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vbackup.api import PluginError, Target
from vbackup.jobs.site import Site

if TYPE_CHECKING:
    from vbackup.jobs.run import MachineResult


def really_kept(site: Site, target: Target, results: Sequence[MachineResult]) -> list[MachineResult]:
    """Return results of one run, as failures where ``target`` does not list the point."""
    if not any(result.point for result in results):
        return list(results)
    kept = {point.id for point in target.points()}
    return [
        replace(result, point=None, error=_lost(site, result.target))
        if result.point is not None and result.point.id not in kept
        else result
        for result in results
    ]


def _lost(site: Site, alias: str) -> PluginError:
    """Return the error. The target may have lost the point, or its transport: nothing tells which."""
    transport = site.config.targets[alias].transport
    kept_by, stored_by = site.blame("targets", alias).plugin, site.blame("transports", transport).plugin
    return PluginError(
        f"target {alias} (plugin {kept_by!r}) does not have the restore point that it took: it, or its transport "
        f"{transport} (plugin {stored_by!r}), has lost it",
        hint="`vbackup verify` says what is there; update these plugins",
    )
