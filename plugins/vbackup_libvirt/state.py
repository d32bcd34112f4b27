"""What belongs to a machine beside its disks: the firmware's variables and the state of an emulated TPM."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from vbackup.api import AccessDenied, Corrupt, NotFound
from vbackup_libvirt import document
from vbackup_libvirt.node import Node
from vbackup_libvirt.swap import Move, beside
from vbackup_qemu.host import Host

NVRAM = "nvram"
TPM = "tpm"

_TPM_DIRECTORIES = ("tpm2", "tpm1.2")
_MAX_BYTES = 64 << 20
_TPM_FILE = re.compile(r"(?:\./)?(tpm2|tpm1\.2)/([A-Za-z0-9][A-Za-z0-9._-]{0,63})")


def read(node: Node, uuid: str, domain: Element) -> tuple[dict[str, bytes], list[str]]:
    """Return the files of a machine, and notes on those that could not be read.

    They are read right after the moment of the disks. A guest that changes a variable or its TPM just then may have
    the newer state in them; firmware and TPMs write rarely, and replace their state as a whole.
    """
    readers: dict[str, Callable[[], bytes]] = {}
    if path := document.nvram(domain):
        readers[NVRAM] = lambda: node.host.read_file(path)
    if document.tpm_version(domain) is not None:
        readers[TPM] = lambda: _pack(node.host, node.tpm_dir(uuid))
    files: dict[str, bytes] = {}
    notes: list[str] = []
    for name, reader in readers.items():
        try:
            data = reader()
        except NotFound:
            notes.append(f"{name}: there is none yet; the machine has not been started since it was defined")
        except AccessDenied as error:
            notes.append(f"{name} was not captured: {error.message}")
        else:
            if len(data) < _MAX_BYTES:
                files[name] = data
            else:
                notes.append(f"{name} was not captured: it has {len(data)} bytes")
    return files, notes


def _pack(host: Host, directory: PurePosixPath) -> bytes:
    if not host.exists(str(directory)):
        raise NotFound(f"{directory} is not there")
    # The lock and the socket of swtpm are no state.
    return host.run(["tar", "-C", str(directory), "--exclude=.lock", "--exclude=*.sock", "-cf", "-", "--", "."]).stdout


def stage(host: Host, files: Mapping[PurePosixPath, bytes], token: str) -> list[Move]:
    """Write firmware variables and TPM state beside their places; what else is in a TPM's directory makes way."""
    stale: list[Move] = []
    for directory in {path.parent for path in files}:
        host.run(["mkdir", "-p", "-m", "0711", "--", str(directory)])
        others = [directory / name for name in host.list_dir(str(directory))]
        if directory.name in _TPM_DIRECTORIES:
            stale += [Move(None, str(path), replaces=True) for path in others if path not in files]
    moves = []
    for path, data in files.items():
        temporary = str(beside(path, token))
        host.write_file(temporary, data)
        moves.append(Move(temporary, str(path), replaces=host.exists(str(path))))
    return [*stale, *moves]


def unpack(data: bytes) -> dict[PurePosixPath, bytes]:
    """Return the files of a TPM's state, by relative path. Raises: `Corrupt` for anything that swtpm does not write."""
    found: dict[PurePosixPath, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = _TPM_FILE.fullmatch(member.name)
                content = archive.extractfile(member) if member.isreg() else None
                if name is None or content is None:
                    raise Corrupt(f"the TPM's state holds {member.name[:80]!r}, which swtpm does not write")
                found[PurePosixPath(name[1], name[2])] = content.read()
    except tarfile.TarError as error:
        raise Corrupt(f"the TPM's state cannot be unpacked: {error}") from error
    return found
