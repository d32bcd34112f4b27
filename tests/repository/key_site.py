"""A repository in memory that is opened with many keys, and what a host that may only write has stored there."""

from __future__ import annotations

import json

import pytest

from tests.support import SECRET, back_up, guest, noise, repository
from vbackup.repository import keys
from vbackup.repository.chunks import Origin
from vbackup.repository.keys import new_key_file, new_private_key
from vbackup.repository.packs import read_pack
from vbackup.repository.sealing import Keys
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

CHUNK = 64 << 10
WRITER = new_key_file().strip()
READER = new_key_file().strip()
PRIVATE, PUBLIC = new_private_key()
PRIVATE = PRIVATE.strip()
FAST = keys.Argon2(memory_kib=8, iterations=1, lanes=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Passphrases need no stretching here."""
    monkeypatch.setattr(keys, "PASSPHRASE", FAST)


class Site:
    """A repository in memory, opened with many keys from many hosts."""

    def __init__(self, path):
        self.path = path
        self.store = MemoryTransport()
        self.lab = FakeHypervisor()
        self._opened = []

    def open(self, secret=SECRET, host="here", store=None):
        target = repository(store or self.store, self.path / host, secret=secret)
        self._opened.append(target)
        return target

    def ring(self, secret=SECRET, store=None):
        return self.open(secret, store=store).key_ring()

    @property
    def id(self):
        return bytes.fromhex(self.open().id)

    def unlocked(self, secret=SECRET):
        return keys.unlock(self.store, secret, self.id)[1]

    def slots(self):
        return {key: json.loads(self.store.get(key)) for key in sorted(i.key for i in self.store.list("keys"))}

    def close(self):
        for target in self._opened:
            target.close()


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.open().init()
    yield made
    made.close()


@pytest.fixture
def written(site):
    """The same, where a host that may only write has made two points; the private key is elsewhere."""
    site.ring().add_secret(WRITER, "backup host", read=False)
    site.ring().add_recipient(PUBLIC, "safe", read=True)
    site.machine = guest(site.lab, "web", noise(40 * CHUNK, 1))
    site.machine.files = {"nvram": noise(100_000, 2)}
    target = site.open(WRITER)
    site.points = [back_up(target, site.lab, "web")]
    site.content = [bytes(site.machine.disks["vda"].data)]
    site.machine.disks["vda"].write(10 * CHUNK, noise(2 * CHUNK, 3))
    site.points.append(back_up(target, site.lab, "web"))
    site.content.append(bytes(site.machine.disks["vda"].data))
    return site


def put_slot(site, slot):
    return keys.put_slot(site.store, slot).rpartition("/")[2]


def stored_blobs(site):
    """Every blob in the store: kind, id, size, bytes, the origin it comes from."""
    ring = Keys(site.unlocked(WRITER), site.id)
    for info in list(site.store.list("packs")):
        pack = read_pack(site.store, ring, bytes.fromhex(info.key.rpartition("/")[2]))
        data = site.store.get(info.key)
        for entry in pack.entries:
            yield entry, data[entry.offset : entry.offset + entry.length], Origin.decode(pack.origins[entry.origin])
