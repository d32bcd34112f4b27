"""What is missing on this machine, and how to get it."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from vbackup.api import Finding, Hypervisor, HypervisorContext, Level, VBackupError
from vbackup.config.models import EncodedTargetEntry
from vbackup.guards.blame import Blame
from vbackup.guards.hypervisor import GuardedHypervisor
from vbackup.jobs.site import Site
from vbackup.registry import Registry


def examine(site: Site | None, registry: Registry) -> list[Finding]:
    """Look at plugins, and with a site at everything that is configured. Never raises for what it looks at."""
    findings = [Finding("Python", Level.OK, platform.python_version())]
    findings += [
        Finding(f"plugin {plugin.name}", Level.ERROR, plugin.error, f"update or remove {plugin.origin}")
        for plugin in registry.plugins
        if plugin.status == "broken"
    ]
    if site is None:
        return findings + _installed(registry)
    for alias in site.config.hypervisors:
        findings += _ask(f"hypervisor {alias}", partial(_check, partial(site.hypervisor, alias)))
    for alias in site.config.transports:
        findings += _ask(f"transport {alias}", partial(_check, partial(site.transport, alias)))
    for alias, entry in site.config.targets.items():
        findings += entry.key.findings() if isinstance(entry, EncodedTargetEntry) else []
        findings += _ask(f"target {alias}", partial(_target, site, alias))
    return findings


class _Checkable(Protocol):
    def check(self) -> Sequence[Finding]: ...


def _check(part: Callable[[], _Checkable]) -> Sequence[Finding]:
    return part().check()


def _installed(registry: Registry) -> list[Finding]:
    """Ask hypervisor plugins that can be made from their defaults what they need."""
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="vbackup-doctor-") as directory:
        for name, cls in registry.hypervisors.items():
            if any(each.is_required() for each in cls.options.model_fields.values()):
                continue
            context = HypervisorContext(name, Path(directory))
            what = f"hypervisor type {name}"
            blame = registry.blame("hypervisors", name, what)
            findings += _ask(what, partial(_check, partial(_with_defaults, cls, context, blame)))
    return findings


def _with_defaults(cls: type[Hypervisor], context: HypervisorContext, blame: Blame) -> GuardedHypervisor:
    with blame.calling("its constructor"):
        made = cls(cls.options(), context)
    return GuardedHypervisor(made, blame)


def _target(site: Site, alias: str) -> list[Finding]:
    target = site.target(alias)
    points = target.points()
    damaged = target.damaged_points()
    findings = [Finding(f"target {alias}", Level.OK, f"{len(points)} restore points, id {target.id}")]
    findings += [Finding(f"target {alias}", Level.ERROR, damage.reason, "run `vbackup verify`") for damage in damaged]
    return findings


def _ask(what: str, question: Callable[[], Sequence[Finding]]) -> list[Finding]:
    try:
        return list(question())
    except VBackupError as error:
        return [Finding(what, Level.ERROR, error.message, error.hint)]
