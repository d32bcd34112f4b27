"""Backups of a machine on the server, by the real command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apache import Apache

from vbackup.testing.cycle import run_cycle
from vbackup.testing.images import ImageMachine
from vbackup.testing.site import Site, configuration


def entry(apache: Apache, path: str) -> dict[str, Any]:
    """Return what stands in the YAML."""
    options = apache.options(path, tls=True)
    return {"type": "webdav", **options.model_dump(mode="json", exclude_none=True)}


def test_a_cycle_of_backups(apache: Apache, tmp_path: Path) -> None:
    """Over TLS; `vbackup transport test` finds nothing wrong, and every point comes back bit for bit."""
    machine = ImageMachine(tmp_path / "images")
    store = entry(apache, apache.new_name())
    site = Site(tmp_path / "site", configuration(tmp_path, machine.hypervisor, transport=store))
    rounds = run_cycle(site, machine.name, change=machine.change, read=machine.read, rounds=2)
    assert all(each.stored < rounds[0].stored / 2 for each in rounds[1:])
    tried = site.json("transport", "test", "store", "--size=32", code=(0, 3))
    assert tried
    assert "fails" not in str(tried)


def test_it_is_there_for_users(apache: Apache, tmp_path: Path) -> None:
    """`plugins` names it, `doctor` looks at the server, and `schema` gives editors its options."""
    machine = ImageMachine(tmp_path / "images", size=1 << 20)
    store = entry(apache, apache.new_name())
    site = Site(tmp_path / "site", configuration(tmp_path, machine.hypervisor, transport=store))
    assert "webdav" in site("plugins").stdout
    assert "vbackup init" in site("doctor", code=1).stdout
    site("init")
    assert store["url"] in site("doctor", code=(0, 3)).stdout
    assert "the last part of the path" in site("schema").stdout
