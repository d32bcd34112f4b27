"""Backups of a machine with this codec, by the real command."""

from __future__ import annotations

from pathlib import Path

from vbackup.testing.cycle import run_cycle
from vbackup.testing.images import ImageMachine
from vbackup.testing.site import Site, configuration

SIZE = 16 << 20


def test_a_cycle_of_backups(tmp_path: Path) -> None:
    """Below encryption: the third of the disk that is text takes next to nothing, and no noise is seen in the store."""
    machine = ImageMachine(tmp_path / "images", size=SIZE)
    target = {"codecs": [{"type": "brotli"}, {"type": "aes-256-gcm"}]}
    site = Site(tmp_path / "site", configuration(tmp_path, machine.hypervisor, target=target))
    [noise] = machine.read().values()
    rounds = run_cycle(site, machine.name, change=machine.change, read=machine.read, rounds=2)
    assert rounds[0].stored < SIZE / 2 < rounds[0].read
    assert all(each.stored < rounds[0].stored / 2 for each in rounds[1:])
    store = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert store
    assert noise[:64] not in store
