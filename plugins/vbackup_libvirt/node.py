"""Where libvirt's machines run: the connection to libvirt, and the host that QEMU and its files are on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree.ElementTree import Element

from vbackup.api import ConfigError, HypervisorContext, NotFound
from vbackup_libvirt import document
from vbackup_libvirt.connection import Connection, library, translated
from vbackup_libvirt.journal import CaptureEntry, RestoreEntry
from vbackup_libvirt.options import LibvirtOptions
from vbackup_libvirt.owed import Owed
from vbackup_qemu.host import Host, LocalHost, SshHost
from vbackup_undo.journal import Journals

T = TypeVar("T")

SYSTEM_SCRATCH = PurePosixPath("/var/lib/libvirt/qemu/vbackup")


class Node:
    """One ``type: libvirt`` entry at work. Constructing one connects to nothing."""

    def __init__(self, options: LibvirtOptions, context: HypervisorContext) -> None:
        self.options = options
        self.alias = context.alias
        self.connection = Connection(options.uri)
        self.host = host_of(options.uri)
        self.captures = Journals(context.state_dir, "capture", CaptureEntry)
        self.restores = Journals(context.state_dir, "restore", RestoreEntry)
        self._scratch = options.scratch
        self._state_dir = context.state_dir

    @property
    def is_session(self) -> bool:
        """Whether it is the libvirt of one user, who also runs QEMU."""
        return urlsplit(self.options.uri).path == "/session"

    @property
    def scratch(self) -> PurePosixPath:
        """The directory for scratch files, on the host."""
        if self._scratch is None:
            self._scratch = (
                self._user_dir("XDG_STATE_HOME", ".local/state") / "vbackup" if self.is_session else SYSTEM_SCRATCH
            )
        return self._scratch

    @property
    def config_dir(self) -> PurePosixPath:
        """Where libvirt keeps what belongs to machines beside their disks."""
        if self.is_session:
            return self._user_dir("XDG_CONFIG_HOME", ".config") / "libvirt/qemu"
        return PurePosixPath("/var/lib/libvirt/qemu")

    def tpm_dir(self, uuid: str) -> PurePosixPath:
        """Where libvirt keeps the state of a machine's emulated TPM."""
        if self.is_session:
            return self._user_dir("XDG_CONFIG_HOME", ".config") / "libvirt/qemu/swtpm" / uuid
        return PurePosixPath("/var/lib/libvirt/swtpm") / uuid

    def owed(self, name: str) -> Owed:
        """Return the mark of a pause; ``name`` is that of the scratch directory of the capture that pauses."""
        return Owed(self._state_dir / f"owed-{name}")

    def machine(self, name: str) -> Machine:
        """Return a machine by its name. Raises: `NotFound`, `Unavailable`."""
        connection = self.connection.get()
        with translated(f"{self.alias}: looking for the machine {name}"):
            return Machine(self, name, connection.lookupByName(name).UUIDString())

    def others(self, uuid: str) -> list[Machine]:
        """Return all machines but one."""
        connection = self.connection.get()
        with translated(f"{self.alias}: listing the machines"):
            found = [Machine(self, d.name(), d.UUIDString()) for d in connection.listAllDomains()]
        return [machine for machine in found if machine.uuid != uuid]

    def resolve(self, paths: Iterable[str]) -> list[str]:
        """Return paths on the host with all symbolic links followed; what is missing is no error."""
        named = list(paths)
        if not named:
            return []
        return self.host.run(["realpath", "-mz", "--", *named]).stdout.decode().split("\0")[:-1]

    def _user_dir(self, variable: str, default: str) -> PurePosixPath:
        script = f'printf %s "${{{variable}:-$HOME/{default}}}"'
        return PurePosixPath(self.host.run(["sh", "-c", script]).stdout.decode())


class Machine:
    """A machine on a node. Asks libvirt anew each time, for connections come and go."""

    def __init__(self, node: Node, name: str, uuid: str) -> None:
        self.node = node
        self.name = name
        self.uuid = uuid

    @property
    def domain(self) -> Any:
        """The `virDomain`, for one use. Raises: `NotFound`, `Unavailable`."""
        return self.node.connection.domain(self.uuid)

    def ask(self, what: str, question: Callable[[Any], T]) -> T:
        """Return ``question(domain)``, with libvirt's errors turned into ours."""
        domain = self.domain
        with translated(f"{self.name}: {what}"):
            return question(domain)

    @property
    def is_active(self) -> bool:
        """Whether it runs, paused or not."""
        return bool(self.ask("asking whether it runs", lambda domain: domain.isActive()))

    @property
    def has_internal_snapshots(self) -> bool:
        """Whether libvirt knows snapshots that are inside of its images."""
        flag = library().VIR_DOMAIN_SNAPSHOT_LIST_INTERNAL
        return bool(self.ask("listing its snapshots", lambda domain: domain.listAllSnapshots(flag)))

    def text(self, *, inactive: bool) -> str:
        """Return its XML: as it will start next time, or as it is now. With the passwords in it: never log it."""
        flags = library().VIR_DOMAIN_XML_SECURE | (library().VIR_DOMAIN_XML_INACTIVE if inactive else 0)
        return str(self.ask("reading its XML", lambda domain: domain.XMLDesc(flags)))

    def xml(self, *, inactive: bool = False) -> Element:
        """Return its XML, parsed."""
        return document.parse(self.text(inactive=inactive))

    @property
    def named_paths(self) -> set[str]:
        """All paths that its XML names, as it is now and as it will start next time."""
        found: set[str] = set()
        for domain in (self.xml(), self.xml(inactive=True)):
            found |= document.paths(domain)
            volumes = [disk for disk in document.disks(domain) if disk.kind == "volume"]
            with suppress(NotFound):  # a volume that is gone has no path
                found |= {path for disk in volumes if (path := self.path(disk))}
        return found

    def path(self, disk: document.Disk) -> str | None:
        """Return where a disk is on the host, None when it is not on it but on a network."""
        if disk.kind == "volume":
            pool, _, volume = disk.source.partition("/")
            connection = self.node.connection.get()
            with translated(f"{self.name}: looking for the volume {disk.source} of disk {disk.key}"):
                return str(connection.storagePoolLookupByName(pool).storageVolLookupByName(volume).path())
        return disk.source if disk.is_local else None


def host_of(uri: str) -> Host:
    """Return the host that a libvirt URI leads to. Raises: `ConfigError` for those whose files are out of reach."""
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    if driver != "qemu" or parts.path not in {"/system", "/session"}:
        raise ConfigError(f"{uri}: not a URI of libvirt's QEMU driver", hint="such as qemu:///system")
    if transport == "ssh":
        identity = parse_qs(parts.query).get("keyfile")
        user = f"{unquote(parts.username)}@" if parts.username else ""
        return SshHost(f"{user}{parts.hostname}", parts.port, Path(identity[0]) if identity else None)
    if transport in {"", "unix"} and not parts.netloc:
        return LocalHost()
    hint = "use qemu+ssh://HOST/system: the backup reads files and sockets on that host"
    raise ConfigError(f"{uri}: cannot reach the files of that host", hint=hint)
