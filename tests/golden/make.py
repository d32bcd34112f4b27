"""Makes the golden repositories of this format version: ``python -m tests.golden.make``.

They are made once, when a format is released, and kept for ever: every later vbackup must restore them. Each is a tar
of a repository's objects, beside what its points hold.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from tests.support import SECRET, back_up, guest, noise
from vbackup.api import Codec, PruneOrder, Target, TargetContext, Transport
from vbackup.registry import Registry
from vbackup.repository.keys import new_private_key
from vbackup.repository.layout import FORMAT
from vbackup.repository.target import Repository, RepositoryOptions
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

HERE = Path(__file__).parent
CHUNK = 16 << 10
PASSPHRASE = b"golden passphrase"
CODECS = {
    "keyfile": ("zstd", "aes-256-gcm"),
    "passphrase": ("lz4", "chacha20-poly1305"),
    "recipient": ("deflate", "bzip2", "aes-256-gcm"),
}


@cache
def codec(name: str) -> Codec:
    """Return an installed codec with its defaults."""
    cls = Registry.load().codecs[name]
    return cls(cls.options())


def open_golden(
    transport: Transport, directory: Path, secret: bytes, codecs: tuple[str, ...], recipient: Path | None = None
) -> Repository:
    """Open (or prepare) a repository with small chunks."""
    steps = [codec(name) for name in codecs]
    context = TargetContext("golden", transport, steps, codec, lambda: secret, directory, directory)
    return Repository(RepositoryOptions(chunk_size=CHUNK, recipients=(recipient,) if recipient else ()), context)


def make(name: str, directory: Path) -> None:
    """Make one golden repository with some history: full, changed, resized, deleted, pruned and protected points."""
    private, public = new_private_key()
    recipient = directory / "golden.pub"
    recipient.write_bytes(public)
    secret = PASSPHRASE if name == "passphrase" else SECRET
    store, lab = MemoryTransport(), FakeHypervisor()
    target = open_golden(store, directory, secret, CODECS[name], recipient if name == "recipient" else None)
    target.init()
    machine = guest(lab, "web", noise(5 * CHUNK, 1) + bytes(20 * CHUNK), b"text " * CHUNK)
    expected: dict[str, dict[str, str]] = {}
    rng = random.Random(name)
    for number in range(5):
        machine.disks["vda"].write(rng.randrange(20) * 4000, noise(3000, number))
        if number == 3:
            machine.disks["vda"].data += noise(2 * CHUNK + 100, 9)
        point = back_up(target, lab, "web")
        expected[point.id] = {key: digest(bytes(disk.data)) for key, disk in machine.disks.items()}
    clean_up(target, expected)
    reader = private if name == "recipient" else secret
    store_as_tar(store, HERE / f"v{FORMAT}" / f"{name}.tar")
    facts = {"secret": reader.decode(), "writer": secret.decode(), "points": expected, "machine": "web"}
    (HERE / f"v{FORMAT}" / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def clean_up(target: Target, expected: dict[str, dict[str, str]]) -> None:
    """Delete two points and prune, so that blobs of several sessions share packs; protect one."""
    points = target.points()
    target.delete([points[0], points[2]])
    for gone in (points[0], points[2]):
        del expected[gone.id]
    target.prune(PruneOrder())
    target.protect(points[1], "golden")


def digest(data: bytes) -> str:
    """Return what is compared."""
    return hashlib.sha256(data).hexdigest()


def store_as_tar(store: MemoryTransport, path: Path) -> None:
    """Write all objects, sorted by their keys."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for info in sorted(store.list()):
            data = store.get(info.key)
            member = tarfile.TarInfo(info.key)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def load_tar(path: Path) -> MemoryTransport:
    """Return a store with the objects of a golden repository."""
    store = MemoryTransport()
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            store.put(member.name, content.read())
    return store


if __name__ == "__main__":
    for each in CODECS:
        with tempfile.TemporaryDirectory() as place:
            make(each, Path(place))
