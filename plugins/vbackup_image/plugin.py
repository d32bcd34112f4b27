"""The hypervisor role for image files."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    Capture,
    CaptureRequest,
    Finding,
    HypervisorContext,
    Level,
    MachineDescription,
    MachineRef,
    Marker,
    NotFound,
    Quiesce,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    Unsupported,
    VBackupError,
)
from vbackup_image import journal
from vbackup_image.capture import Captures, ImageCapture, keep_only
from vbackup_image.options import Image, ImageOptions
from vbackup_image.restore import restoration
from vbackup_qemu import libnbd
from vbackup_qemu.host import LocalHost


class ImageHypervisor:
    """Machines that are nothing but images on this machine; see `vbackup.api.Hypervisor`."""

    name: ClassVar[str] = "image"
    options: ClassVar[type[BaseModel]] = ImageOptions
    writes_files: ClassVar[bool] = True

    def __init__(self, options: ImageOptions, context: HypervisorContext) -> None:
        self._options = options
        self._context = context
        self._host = LocalHost()
        self._live: dict[tuple[str, str], ImageCapture] = {}
        self._lock = threading.Lock()

    def machines(self) -> list[MachineRef]:
        """See `Hypervisor.machines`."""
        return [MachineRef(name, name, running=False) for name in self._options.machines]

    @contextmanager
    def capture(self, machine: str, request: CaptureRequest) -> Iterator[Capture]:
        """See `Hypervisor.capture`."""
        images = self._images(machine)
        if request.quiesce is Quiesce.YES:
            raise Unsupported(f"{machine}: images have no guest to freeze", hint="use quiesce: try")
        captures = Captures(self._host, machine, images, request)
        with (
            journal.journal(self._context.state_dir, _journal_name("capture", machine), f"a capture of {machine}") as j,
            captures.hold(j.private_dir()) as capture,
        ):
            with self._lock:
                self._live[machine, request.owner] = capture
            try:
                yield capture
            finally:
                with self._lock:
                    del self._live[machine, request.owner]

    def commit(self, machine: str, owner: str, marker: Marker) -> None:
        """See `Hypervisor.commit`. While the capture is open its images are locked: it then tidies up as it closes."""
        with self._lock:
            live = self._live.get((machine, owner))
            if live is not None and live.marker == marker:
                live.committed = True
                return
        images = {f"disk{index}": item for index, item in enumerate(self._images(machine))}
        keep_only(self._host, images, owner, marker)

    def sweep(self, owner: str) -> list[str]:  # noqa: ARG002 - what is left behind here has no owner
        """See `Hypervisor.sweep`."""
        return [f"removed {path}" for path in journal.sweep(self._context.state_dir)]

    def restore(
        self,
        machine: MachineDescription,
        disks: Sequence[RestoreDisk],
        files: Mapping[str, bytes],
        request: RestoreRequest,
    ) -> AbstractContextManager[Restoration]:
        """See `Hypervisor.restore`."""
        return self._restore(machine, disks, files, request)

    @contextmanager
    def _restore(
        self,
        machine: MachineDescription,
        disks: Sequence[RestoreDisk],
        files: Mapping[str, bytes],
        request: RestoreRequest,
    ) -> Iterator[Restoration]:
        name = secrets.token_hex(4) if request.disks else request.name or machine.name
        what = f"a restore of {machine.name}"
        with (
            journal.journal(self._context.state_dir, _journal_name("restore", name), what) as record,
            restoration(self._host, self._options, record, machine, disks, files, request) as restored,
        ):
            yield restored

    def answers(self, machine: str) -> bool:
        """See `Hypervisor.answers`."""
        raise Unsupported(f"{machine} is only images: there is no guest to answer")

    def check(self) -> Sequence[Finding]:
        """See `Hypervisor.check`."""
        return [self._check_program("qemu-img"), self._check_program("qemu-nbd"), _check_libnbd()]

    def _check_program(self, program: str) -> Finding:
        try:
            version = self._host.run([program, "--version"]).stdout.decode().partition("\n")[0]
        except VBackupError as error:
            return Finding(program, Level.ERROR, error.message, error.hint)
        return Finding(program, Level.OK, version)

    def close(self) -> None:
        """See `Hypervisor.close`; nothing is held between calls."""

    def _images(self, machine: str) -> Sequence[Image]:
        try:
            return self._options.machines[machine]
        except KeyError:
            known = ", ".join(self._options.machines) or "none"
            raise NotFound(f"{self._context.alias} has no machine {machine}", hint=f"there are: {known}") from None


def _journal_name(kind: str, machine: str) -> str:
    """Return a file name for a machine, whose own name may be anything."""
    return f"{kind}-{hashlib.sha256(machine.encode()).hexdigest()[:16]}"


def _check_libnbd() -> Finding:
    try:
        version = libnbd.version_of(libnbd.load())
    except VBackupError as error:
        return Finding("libnbd", Level.ERROR, error.message, error.hint)
    return Finding("libnbd", Level.OK, version)
