"""Groups, selectors and memory in the configuration: what loads, and where mistakes are named."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from vbackup.api import ConfigError
from vbackup.config import load, schema
from vbackup.config.groups import Address, Ready
from vbackup.registry import Registry

GOOD = """\
hypervisors:
  lab: {type: image}
transports:
  disk: {type: local, path: /srv/x}
targets:
  main: {type: repository, transport: disk, key: {file: /etc/main.key}}
groups:
  shop:
    machines:
      - {machine: "lab:db", ready: {agent: yes, within: 90s}}
      - {machine: "lab:my app=1", ready: {tcp: "10.0.0.2:8080", delay: 1.5s}}
      - {machine: "lab:web"}
jobs:
  nightly:
    machines: ["@shop", "lab:/DC0/vm/*", "lab:tag=backup/daily", "!lab:Owner=me", "!@shop"]
    target: main
    memory: yes
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def write(directory: Path, text: str) -> Path:
    path = directory / "vbackup.yaml"
    path.write_text(text)
    return path


def refused(directory: Path, registry: Registry, text: str) -> list[str]:
    path = write(directory, text)
    with pytest.raises(ConfigError) as caught:
        load(path, registry)
    return [line.removeprefix(f"{path}:") for line in caught.value.message.splitlines()]


def test_a_good_one_loads_and_its_schema_agrees(tmp_path: Path, registry: Registry) -> None:
    config = load(write(tmp_path, GOOD), registry)
    db, app, web = config.groups["shop"].machines
    assert db.ready == Ready(agent=True, within="90s")
    assert app.machine == "lab:my app=1"
    assert app.ready is not None
    assert (app.ready.tcp, app.ready.delay, app.ready.within) == (Address("10.0.0.2", 8080), 1.5, 300.0)
    assert web.ready is None
    assert config.jobs["nightly"].memory is True
    jsonschema.validate(YAML(typ="safe", pure=True).load(GOOD), schema(registry))


@pytest.mark.parametrize(
    ("word", "memory"), [("yes", True), ("no", False), ("true", True), ("false", False), ('"no"', False)]
)
def test_memory_is_yes_or_no(tmp_path: Path, registry: Registry, word: str, memory: bool) -> None:
    text = GOOD.replace("memory: yes", f"memory: {word}")
    assert load(write(tmp_path, text), registry).jobs["nightly"].memory is memory


def test_without_a_word_there_is_no_memory_and_there_are_no_groups(tmp_path: Path, registry: Registry) -> None:
    config = load(write(tmp_path, "hypervisors: {}"), registry)
    assert dict(config.groups) == {}


@pytest.mark.parametrize("address", ["10.0.0.2:80", "db.example.org:5432", "[2001:db8::2]:443"])
def test_addresses(address: str) -> None:
    host, _, port = address.rpartition(":")
    assert Ready.model_validate({"tcp": address}).tcp == Address(host.strip("[]"), int(port))


MISTAKES = {
    "unknown hypervisor": (
        '"lab:db"',
        '"lap:db"',
        ["10:19: groups.shop.machines.0.machine: there is no hypervisor 'lap'; did you mean 'lab'?"],
    ),
    "glob": ('"lab:web"', '"lab:web-*"', ["12:19: groups.shop.machines.2.machine: must be the name of one machine as"]),
    "no hypervisor": ('"lab:web"', '"web"', ["12:19: groups.shop.machines.2.machine: must be the name of one"]),
    "twice": (
        '"lab:web"',
        '"lab:db"',
        ["12:19: groups.shop.machines.2.machine: 'lab:db' is in group 'shop' already, on line 10"],
    ),
    "in two groups": (
        "jobs:",
        '  bar: {machines: [{machine: "lab:web"}]}\njobs:',
        ["13:30: groups.bar.machines.0.machine: 'lab:web' is in group 'shop' already, on line 12"],
    ),
    "no members": (
        "jobs:",
        "  bar: {machines: []}\njobs:",
        ["13:9: groups.bar.machines: must have at least 1 item"],
    ),
    "unknown group": (
        '"@shop", ',
        '"@shup", ',
        ["15:16: jobs.nightly.machines.0: there is no group 'shup'; did you mean 'shop'?"],
    ),
    "no name": ('"@shop", ', '"@", ', ["15:16: jobs.nightly.machines.0: must be hypervisor:machine with *"]),
    "nothing to wait for": (
        "{agent: yes, within: 90s}",
        "{within: 90s}",
        ["10:29: groups.shop.machines.0.ready: must say what to wait for: agent, tcp or delay"],
    ),
    "no time": ("90s", "90", ["10:57: groups.shop.machines.0.ready.within: must be a time with its unit"]),
    "no port": (
        '"10.0.0.2:8080"',
        '"10.0.0.2"',
        ["11:48: groups.shop.machines.1.ready.tcp: must be an address and a port in quotes"],
    ),
    "port too large": (
        '"10.0.0.2:8080"',
        '"10.0.0.2:80800"',
        ["11:48: groups.shop.machines.1.ready.tcp: must be an address and a port in quotes"],
    ),
    "unknown key": (
        "within",
        "withn",
        ["10:49: groups.shop.machines.0.ready.withn: unknown key; did you mean 'within'"],
    ),
    "memory as a number": ("memory: yes", "memory: 1", ["17:13: jobs.nightly.memory: must be a valid boolean"]),
}


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_where_it_is(
    tmp_path: Path, registry: Registry, old: str, new: str, expected: list[str]
) -> None:
    assert old in GOOD
    found = refused(tmp_path, registry, GOOD.replace(old, new, 1))
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected
