"""The entry of the target: no key, no codecs, and a transport that has files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
from ruamel.yaml import YAML

import vbackup_image
import vbackup_local
from vbackup.api import ConfigError, Unsupported, hookimpl
from vbackup.config import load, schema
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup.wrappers.retry import RetryingTransport
from vbackup_local.transport import Local, LocalOptions

from .plain import back_up, guest, noise, restored

GOOD = """\
transports:
  disk: {type: local, path: /srv/images}
targets:
  plain:
    type: image
    transport: disk
    backing: true
"""


class Cloud(MemoryTransport):
    """A third-party transport without files."""

    name: ClassVar[str] = "cloud"


class Share(Local):
    """A third-party transport with files, in a directory of its own choice."""

    name: ClassVar[str] = "share"

    @property
    def root(self) -> Path:
        return super().root / "inside"

    def create(self, *, force: bool = False) -> None:
        super().create()
        self.root.mkdir()


class Plugin:
    @hookimpl
    def vbackup_register_transports(self, register: Any) -> None:
        register(Cloud)
        register(Share)


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry()
    registry.register(vbackup_image, "image")
    registry.register(vbackup_local, "local")
    registry.register(Plugin(), "third-party")
    return registry


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "vbackup.yaml"
    path.write_text(text)
    return path


def test_an_entry_has_neither_key_nor_codecs(tmp_path: Path, registry: Registry) -> None:
    entry = load(written(tmp_path, GOOD), registry).targets["plain"]
    assert entry.model_dump() == {"type": "image", "transport": "disk", "format": "qcow2", "backing": True}
    assert isinstance(entry, registry.targets["image"].options)
    jsonschema.Draft7Validator(schema(registry)).validate(YAML(typ="safe", pure=True).load(GOOD))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("    backing: true", "    key: {file: /k}", "7:5: targets.plain.key: unknown key"),
        ("    backing: true", "    codecs: []", "7:5: targets.plain.codecs: unknown key"),
        ("    backing: true", "    bakcing: true", "7:5: targets.plain.bakcing: unknown key; did you mean 'backing'?"),
        ("    backing: true", "    format: vmdk", "7:13: targets.plain.format: must be 'qcow2' or 'raw'"),
        (
            "    backing: true",
            "    backing: true\n    format: raw",
            "7:14: targets.plain.backing: raw files cannot have backing files",
        ),
        (
            "{type: local, path: /srv/images}",
            "{type: cloud}",
            "6:16: targets.plain.transport: a target of type 'image' needs files, and a transport of type 'cloud' has ",
        ),
        ("transport: disk", "transport: dsk", "6:16: targets.plain.transport: there is no transport 'dsk'; did you "),
        ("transport: disk", "transport: [disk]", "6:5: targets.plain.transport: must be a text"),
    ],
)
def test_mistakes(tmp_path: Path, registry: Registry, old: str, new: str, problem: str) -> None:
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(path, registry)
    assert caught.value.message.startswith(f"{path}:{problem}")
    assert "\n" not in caught.value.message


def test_a_third_party_transport_that_has_files_will_do(tmp_path: Path, registry: Registry) -> None:
    text = GOOD.replace("local, path: /srv/images", f"share, path: {tmp_path}/share")
    config = load(written(tmp_path, text), registry)
    with Site(config, registry, state_dir=tmp_path / "state", cache_dir=tmp_path / "cache") as site:
        target = site.target("plain")
        target.init()
        lab = FakeHypervisor()
        guest(lab, "web", noise(1 << 20, 1))
        assert restored(target, back_up(target, lab, "web")) == {"vda": noise(1 << 20, 1)}
        assert (tmp_path / "share" / "inside" / "web").is_dir()


def test_wrappers_have_the_files_of_what_is_inside(tmp_path: Path) -> None:
    local = Local(LocalOptions(path=tmp_path))
    for wrap in (FaultyTransport, lambda inner: RetryingTransport(inner, 1)):
        assert wrap(local).root == tmp_path
        assert wrap(MemoryTransport()).root is None


def test_without_files_nothing_is_done(tmp_path: Path, registry: Registry) -> None:
    """Whoever comes around the configuration is told as well."""
    from vbackup.api import TargetContext

    context = TargetContext("plain", MemoryTransport(), (), lambda name: None, bytes, tmp_path, tmp_path)  # type: ignore[arg-type,return-value]
    target = registry.targets["image"](registry.targets["image"].options(), context)
    with pytest.raises(Unsupported, match="keeps files"):
        target.init()


def test_what_the_readme_shows_loads(tmp_path: Path, registry: Registry) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    shown = [block for block in blocks if "targets:" in block]
    assert shown
    for block in shown:
        assert load(written(tmp_path, block), registry).targets
