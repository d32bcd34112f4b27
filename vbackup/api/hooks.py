"""The hookspecs. pluggy is for registration and events only; data never flows through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import pluggy

from vbackup.api.codec import Codec
from vbackup.api.events import JobFinished, JobProgress, JobStarted
from vbackup.api.executor import Executor
from vbackup.api.hypervisor import Hypervisor
from vbackup.api.target import Target
from vbackup.api.transport import Transport

if TYPE_CHECKING:
    import click

API_VERSION = 1
"""Raised when a change breaks plugins; a plugin may state ``VBACKUP_API_VERSION`` to be refused politely.

A plugin's module may also state what it brings, by role: ``VBACKUP_BRINGS = {"transports": ["webdav"]}``. Then its
registering hooks are called, and all is imported that they import, only when something of that is wanted. It must be
all of it: a plugin that brings anything else counts as broken.
"""

hookspec = pluggy.HookspecMarker("vbackup")
hookimpl = pluggy.HookimplMarker("vbackup")
"""Mark an implementation of one of the hooks below."""

Role_contra = TypeVar("Role_contra", contravariant=True)


class Register(Protocol[Role_contra]):
    """Registers one class (or command); called by a plugin once for each."""

    def __call__(self, cls: Role_contra, /) -> None:
        """Register ``cls``. Raises `PluginError` when its name is taken or it is not of the role."""


class Hooks:
    """All hooks of vbackup. Each is optional.

    Events come to a plugin one at a time, in their order, in a thread for it alone. What it raises is logged, once for
    each hook. The backup waits for it to return, for 5 seconds at most: then it misses progress until it has caught up.
    """

    @hookspec
    def vbackup_register_hypervisors(self, register: Register[type[Hypervisor]]) -> None:
        """Call ``register(cls)`` for each hypervisor class."""

    @hookspec
    def vbackup_register_transports(self, register: Register[type[Transport]]) -> None:
        """Call ``register(cls)`` for each transport class."""

    @hookspec
    def vbackup_register_codecs(self, register: Register[type[Codec]]) -> None:
        """Call ``register(cls)`` for each codec class."""

    @hookspec
    def vbackup_register_targets(self, register: Register[type[Target]]) -> None:
        """Call ``register(cls)`` for each target class."""

    @hookspec
    def vbackup_register_executors(self, register: Register[type[Executor]]) -> None:
        """Call ``register(cls)`` for each executor class."""

    @hookspec
    def vbackup_register_commands(self, register: Register[click.Command]) -> None:
        """Call ``register(command)`` for each command or group of `click` that ``vbackup NAME`` shall find.

        See `vbackup.api.command`. The name is `click.Command.name`: lower-case, and none of vbackup's own.
        """

    @hookspec
    def vbackup_job_started(self, event: JobStarted) -> None:
        """A machine's turn in a job has come."""

    @hookspec
    def vbackup_job_progress(self, event: JobProgress) -> None:
        """A disk has moved on. Called a few times a second for each disk: be quick."""

    @hookspec
    def vbackup_job_finished(self, event: JobFinished) -> None:
        """A machine in a job is done, well or not."""
