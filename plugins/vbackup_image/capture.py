"""A capture of images that nobody writes to: QEMU's locks keep them as they are while they are served."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vbackup.api import (
    AccessDenied,
    Busy,
    CaptureLost,
    CaptureRequest,
    DiskDescription,
    MachineDescription,
    Marker,
    NoSpace,
    Range,
    SourceDisk,
    Unsupported,
    VBackupError,
)
from vbackup.api.clock import now
from vbackup_image import tracking
from vbackup_image.options import Image
from vbackup_image.places import claimed
from vbackup_image.tracking import DiskMarker
from vbackup_qemu import image
from vbackup_qemu.host import Host
from vbackup_qemu.image import ImageInfo, Trace
from vbackup_qemu.nbd import ALLOCATION, NbdClient, bitmap_context
from vbackup_qemu.server import serve
from vbackup_qemu.source import NbdDisk


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is about to be served: ``old`` is the bitmap to read, ``new`` the one that was added."""

    key: str
    image: Image
    info: ImageInfo
    backing: tuple[Trace, ...] | None
    """None when it cannot be told."""
    old: str | None
    full_reason: str | None
    new: str | None


class ImageCapture:
    """A `Capture`: everything in it is served from one moment on."""

    quiesced = False
    memory: SourceDisk | None = None
    files: Mapping[str, bytes] = {}

    def __init__(self, host: Host, machine: MachineDescription, notes: Sequence[str]) -> None:
        self._host = host
        self.machine = machine
        self.notes = notes
        self.time: datetime = now()
        self.disks: Sequence[SourceDisk] = ()
        self.marker: Marker | None = None
        self.committed = False
        self._open: list[tuple[NbdClient, Trace]] = []

    def opened(self, client: NbdClient, trace: Trace) -> None:
        """Take note of an image that is being served from now on."""
        self._open.append((client, trace))

    def check(self) -> None:
        """See `Capture.check`: every server is the one that we began with, and no file was written to."""
        for client, before in self._open:
            if client.size:
                next(client.status(ALLOCATION, [Range(0, 512)]))
            if image.trace(self._host, [before.path]) != (before,):
                raise CaptureLost(
                    f"{before.path} was written to while it was read", hint="by something other than QEMU"
                )


class Captures:
    """Makes captures of one owner's machine; see `Hypervisor.capture`."""

    def __init__(self, host: Host, name: str, images: Sequence[Image], request: CaptureRequest) -> None:
        self._host = host
        self._name = name
        self._images = {f"disk{index}": item for index, item in enumerate(images)}
        self._request = request
        self._since = tracking.from_marker(request.since, request.owner)

    @contextmanager
    def hold(self, sockets: Path) -> Iterator[ImageCapture]:
        """Hold a capture open; the new bitmaps stay only if the context is left in order, or it was committed."""
        prepared: list[Prepared] = []
        capture: ImageCapture | None = None
        try:
            with ExitStack() as stack:
                capture = self._open(stack, sockets, prepared)
                yield capture
        except BaseException:
            if capture is None or not capture.committed:
                self._abandon(prepared)
            raise
        finally:
            if capture is not None and capture.committed and capture.marker is not None:
                keep_only(self._host, self._images, self._request.owner, capture.marker)

    def _open(self, stack: ExitStack, sockets: Path, prepared: list[Prepared]) -> ImageCapture:
        excluded = {key: self._pass_over(key) for key in self._images if key in self._request.exclude}
        infos = {key: self._look(key) for key in self._images if key not in excluded}
        notes: list[str] = []
        for key, info in infos.items():
            prepared.append(self._prepare(key, info, notes))
        capture = ImageCapture(self._host, self._describe({**excluded, **infos}), notes)
        if self._request.moment is not None:
            self._request.moment()
        capture.disks = [self._serve(stack, sockets, capture, disk) for disk in prepared]
        capture.time = now()
        capture.marker = tracking.to_marker(
            {
                d.key: DiskMarker(bitmap=d.new, size=d.info.virtual_size, backing=d.backing)
                for d in prepared
                if d.new is not None and d.backing is not None
            }
        )
        return capture

    def _look(self, key: str) -> ImageInfo:
        item = self._images[key]
        info = image.info(self._host, item.path, item.format)
        if info.encrypted:
            raise Unsupported(f"{self._name}: {item.path} is encrypted; it cannot be read without its key")
        return info

    def _pass_over(self, key: str) -> ImageInfo | None:
        """Look at an image that is left out, and may not even be there; what is left of earlier backups goes."""
        item = self._images[key]
        with suppress(VBackupError):
            if item.format == "qcow2" and key not in self._since:
                tracking.tidy(self._host, item.path, self._request.owner, ())
        with suppress(VBackupError):
            return image.info(self._host, item.path, item.format, force_share=True)
        return None

    def _prepare(self, key: str, info: ImageInfo, notes: list[str]) -> Prepared:
        """Add the new bitmap, and see whether the old one can be used."""
        item, since = self._images[key], self._since.get(key)
        cannot = tracking.untrackable(item.path, info)
        new, backing = None, None
        if cannot is None:
            try:
                backing = self._backing(item, info)
            except Unsupported as error:
                cannot = error.message
        if cannot is None:
            new = tracking.new_name(self._request.owner)
            try:
                keep = {since.bitmap} if since is not None else set()
                tracking.tidy(self._host, item.path, self._request.owner, keep)
                image.add_bitmap(self._host, item.path, new)
            except (AccessDenied, NoSpace) as error:
                new, cannot = None, f"no bitmap can be added: {error.message}"
                notes.append(f"{key} will be read in full next time: {cannot}")
        reason = tracking.unusable(info, backing, since)
        old = since.bitmap if since is not None and reason is None else None
        return Prepared(key, item, info, backing, old, cannot if reason and cannot else reason, new)

    def _backing(self, item: Image, info: ImageInfo) -> tuple[Trace, ...]:
        below = image.backing_files(self._host, item.path, item.format) if info.backing else []
        return image.trace(self._host, below)

    def _serve(self, stack: ExitStack, sockets: Path, capture: ImageCapture, disk: Prepared) -> SourceDisk:
        item = disk.image
        if item.path.is_block_device():
            stack.enter_context(claimed(item.path))
        served = serve(self._host, item.path, item.format, bitmap=disk.old, sockets=sockets)
        contexts = (ALLOCATION, bitmap_context(disk.old)) if disk.old else (ALLOCATION,)
        label = f"{self._name}/{disk.key}"
        client = stack.enter_context(NbdClient(stack.enter_context(served), contexts=contexts, label=label))
        capture.opened(client, image.trace(self._host, [item.path])[0])
        if client.size != disk.info.virtual_size:
            raise CaptureLost(f"{item.path} was resized from {disk.info.virtual_size} to {client.size} bytes just now")
        return NbdDisk(disk.key, client, bitmap=disk.old, full_reason=disk.full_reason)

    def _describe(self, infos: Mapping[str, ImageInfo | None]) -> MachineDescription:
        disks = tuple(
            DiskDescription(
                key=key, size=info.virtual_size if info else 0, format=item.format, source=os.fspath(item.path)
            )
            for key, item in self._images.items()
            for info in [infos[key]]
        )
        return MachineDescription(name=self._name, id=self._name, disks=disks)

    def _abandon(self, prepared: Sequence[Prepared]) -> None:
        for disk in prepared:
            if disk.new is not None:
                with suppress(VBackupError):  # what went wrong before counts; the next capture removes this bitmap
                    image.remove_bitmap(self._host, disk.image.path, disk.new)


def keep_only(host: Host, images: Mapping[str, Image], owner: str, marker: Marker) -> None:
    """Remove the bitmaps of this owner that ``marker`` does not name.

    Where a machine runs by now they stay, until the next capture removes them.
    """
    for key, disk in tracking.from_marker(marker, owner).items():
        item = images.get(key)
        if item is not None:
            with suppress(Busy):
                tracking.tidy(host, item.path, owner, {disk.bitmap})
