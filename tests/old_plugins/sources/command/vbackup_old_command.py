"""A command, as one was written for API version 1."""

import click

from vbackup.api import hookimpl

VBACKUP_API_VERSION = 1


@click.command("old-command")
@click.argument("kind")
@click.pass_obj
def command(context, kind):
    """Name the hypervisors of a type."""
    for name, hypervisor in context.hypervisors(kind).items():
        context.write(f"{name}: {', '.join(machine.name for machine in hypervisor.machines())}")
    return 3


@hookimpl
def vbackup_register_commands(register):
    register(command)
