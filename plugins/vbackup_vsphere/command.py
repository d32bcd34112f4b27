"""``vbackup vsphere``: what only this plugin can do."""

from __future__ import annotations

import click

from vbackup.api import ConfigError, NotFound
from vbackup.api.command import CommandContext
from vbackup_vsphere.hypervisor import Vsphere


@click.group(name="vsphere")
def vsphere() -> None:
    """What concerns vCenter and ESXi only."""


@vsphere.command()
@click.option("--vm", required=True, help="The name of the machine to try it with.")
@click.option("--hypervisor", help="Its hypervisor, as the configuration calls it; needed where there are several.")
@click.pass_obj
def selftest(context: CommandContext, vm: str, hypervisor: str | None) -> int:
    """Snapshot, read and remove on a real site; prints a report to paste.

    Makes one snapshot of the machine and removes it again. The report names no host, machine or user.
    """
    from vbackup_vsphere.selftest import selftest as run

    return 0 if run(_chosen(context, hypervisor).site, vm, context.write) else 1


def _chosen(context: CommandContext, name: str | None) -> Vsphere:
    known = context.hypervisors("vsphere")
    if not known:
        raise ConfigError("no hypervisor of `type: vsphere` is configured")
    if name is None and len(known) > 1:
        raise ConfigError(
            "several hypervisors are of `type: vsphere`", hint=f"--hypervisor {' or '.join(sorted(known))}"
        )
    found = known.get(name) if name is not None else next(iter(known.values()))
    if not isinstance(found, Vsphere):
        raise NotFound(f"no hypervisor {name} of `type: vsphere` is configured")
    return found
