"""The configuration: good ones load, each mistake is named with its file, line and column."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import TZPATH, ZoneInfo

import jsonschema
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from vbackup.api import ConfigError, Options, Quiesce, hookimpl
from vbackup.config import Config, find, load, schema, zone
from vbackup.config.timezones import checked
from vbackup.registry import Registry
from vbackup.testing.transports import MemoryTransport

ROOT = Path(__file__).parents[1]

GOOD = """\
hypervisors:
  lab: {type: image}
transports:
  disk: {type: local, path: /srv/x}
targets:
  main:
    type: repository
    transport: disk
    key: {file: /etc/main.key}
jobs:
  nightly:
    machines: ["lab:*", "!lab:scratch-*"]
    target: main
    quiesce: no
"""


class Deep(Options):
    bucket: str


class CloudOptions(Options):
    region: str = "here"
    deep: Deep | None = None
    count: int = 1


class Cloud(MemoryTransport):
    """A third-party transport with options of its own."""

    name: ClassVar[str] = "cloud"
    options: ClassVar[type[BaseModel]] = CloudOptions


class CloudPlugin:
    """Registers it."""

    @hookimpl
    def vbackup_register_transports(self, register: Any) -> None:
        register(Cloud)


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry.load()
    registry.register(CloudPlugin(), "cloud-plugin")
    return registry


def refused(tmp_path: Path, registry: Registry, text: str | bytes) -> list[str]:
    """Load a configuration that is wrong; return the problems, without the file name before them."""
    path = tmp_path / "vbackup.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(path, registry)
    lines = caught.value.message.splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def loaded(tmp_path: Path, registry: Registry, text: str) -> Config:
    path = tmp_path / "vbackup.yaml"
    path.write_text(text)
    return load(path, registry)


def test_a_good_configuration(tmp_path: Path, registry: Registry) -> None:
    config = loaded(tmp_path, registry, GOOD)
    target = config.targets["main"]
    assert config.transports["disk"].type == "local"
    assert isinstance(config.transports["disk"], registry.transports["local"].options)
    assert isinstance(target, registry.targets["repository"].options)
    assert [codec.type for codec in target.codecs] == ["zstd", "aes-256-gcm"]
    assert all(isinstance(codec, registry.codecs[codec.type].options) for codec in target.codecs)
    assert target.key.file == Path("/etc/main.key")
    job = config.jobs["nightly"]
    assert (job.machines, job.target, job.parallel) == (("lab:*", "!lab:scratch-*"), "main", 2)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", Quiesce.NO),
        ("false", Quiesce.NO),
        ("'no'", Quiesce.NO),
        ("yes", Quiesce.YES),
        ("true", Quiesce.YES),
        ("try", Quiesce.TRY),
    ],
)
def test_quiesce_means_the_same_in_both_versions_of_yaml(
    tmp_path: Path, registry: Registry, written: str, meant: Quiesce
) -> None:
    text = GOOD.replace("quiesce: no", f"quiesce: {written}")
    assert loaded(tmp_path, registry, text).jobs["nightly"].quiesce is meant
    assert loaded(tmp_path, registry, f"%YAML 1.1\n---\n{text}").jobs["nightly"].quiesce is meant
    jsonschema.Draft7Validator(schema(registry)).validate(YAML(typ="safe", pure=True).load(text))


def test_quiesce_defaults_to_try(tmp_path: Path, registry: Registry) -> None:
    config = loaded(tmp_path, registry, GOOD.replace("    quiesce: no\n", ""))
    assert config.jobs["nightly"].quiesce is Quiesce.TRY


def test_anchors_and_numbers_in_their_notations(tmp_path: Path, registry: Registry) -> None:
    text = GOOD.replace("machines: [", "machines: &these [").replace("quiesce: no", "parallel: 0x10")
    text += "  weekly: {machines: *these, target: main, keep: {last: 0, daily: 7}}\n"
    config = loaded(tmp_path, registry, text)
    assert config.jobs["weekly"].machines == config.jobs["nightly"].machines
    assert config.jobs["nightly"].parallel == 16
    keep = config.jobs["weekly"].keep
    assert keep is not None
    assert (keep.last, keep.daily, keep.yearly) == (0, 7, None)


def test_copies_go_to_other_targets_once_each(tmp_path: Path, registry: Registry) -> None:
    offsite = "  offsite: {type: repository, transport: disk, key: {env: KEY}}\n"
    text = GOOD.replace("jobs:", f"{offsite}jobs:") + "    copies: "
    assert loaded(tmp_path, registry, GOOD).jobs["nightly"].copies == ()
    assert loaded(tmp_path, registry, f"{text}[offsite]\n").jobs["nightly"].copies == ("offsite",)
    (problem,) = refused(tmp_path, registry, f"{text}[offsite, offsite]\n")
    assert problem.endswith(": jobs.nightly.copies: must not name a target twice")


def test_the_time_zone_of_a_job(tmp_path: Path, registry: Registry) -> None:
    assert loaded(tmp_path, registry, GOOD).jobs["nightly"].timezone is None
    job = loaded(tmp_path, registry, GOOD + "    timezone: America/St_Johns\n").jobs["nightly"]
    assert zone(job.timezone) == ZoneInfo("America/St_Johns")


@pytest.mark.parametrize("name", ["", "Europe", "/etc/localtime", ".", "zone.tab", "UTC ", "a\0b"])
def test_names_that_are_no_time_zone(name: str) -> None:
    with pytest.raises(ValueError, match="must be the name of a time zone"):
        checked(name)


def test_no_time_zone_data_is_told_apart_from_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbackup.config.timezones.available_timezones", set)
    with pytest.raises(ValueError, match="install tzdata"):
        checked("Europe/Nowhere")


SUMMER = datetime(2026, 7, 1, tzinfo=UTC)
KATHMANDU, BERLIN = timedelta(hours=5, minutes=45), timedelta(hours=2)


@pytest.mark.parametrize("kind", ["link", "copy"])
@pytest.mark.parametrize(
    ("variable", "offset"),
    [
        (None, KATHMANDU),
        ("", timedelta(0)),
        ("Europe/Berlin", BERLIN),
        (":Europe/Berlin", BERLIN),
        (f"{TZPATH[0]}/Europe/Berlin", BERLIN),
    ],
)
def test_the_time_zone_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, variable: str | None, offset: timedelta
) -> None:
    local = tmp_path / "localtime"
    kathmandu = Path(TZPATH[0], "Asia/Kathmandu")
    if kind == "link":
        local.symlink_to(kathmandu)
    else:
        local.write_bytes(kathmandu.read_bytes())
    monkeypatch.setattr("vbackup.config.timezones.LOCALTIME", local)
    if variable is None:
        monkeypatch.delenv("TZ", raising=False)
    else:
        monkeypatch.setenv("TZ", variable)
    assert SUMMER.astimezone(zone(None)).utcoffset() == offset


@pytest.mark.parametrize("variable", [None, "Europe/Nowhere", "CET-1CEST", "/none"])
def test_a_machine_without_a_time_zone_has_utc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str | None
) -> None:
    monkeypatch.setattr("vbackup.config.timezones.LOCALTIME", tmp_path / "none")
    if variable is None:
        monkeypatch.delenv("TZ", raising=False)
    else:
        monkeypatch.setenv("TZ", variable)
    assert zone(None) is UTC
    assert ("names no time zone" in caplog.text) == (variable is not None)


CASES: dict[str, tuple[str, str, list[str]]] = {
    "unknown section": ("jobs:", "jobz:", ["10:1: jobz: unknown key; did you mean 'jobs'?"]),
    "unknown key of a plugin, and so a missing one": (
        "path: /srv/x",
        "pth: /srv/x",
        ["4:3: transports.disk: missing key 'path'", "4:23: transports.disk.pth: unknown key; did you mean 'path'?"],
    ),
    "unknown key of ours": (
        "    target: main\n",
        "    target: main\n    paralel: 3\n",
        ["14:5: jobs.nightly.paralel: unknown key; did you mean 'parallel'?"],
    ),
    "unknown key like nothing": (
        "    target: main\n",
        "    target: main\n    zzz: 3\n",
        ["14:5: jobs.nightly.zzz: unknown key"],
    ),
    "unknown key deep in third-party options": (
        "{type: local, path: /srv/x}",
        "{type: cloud, deep: {bukcet: x}}",
        [
            "4:23: transports.disk.deep: missing key 'bucket'",
            "4:30: transports.disk.deep.bukcet: unknown key; did you mean 'bucket'?",
        ],
    ),
    "unknown key in a codec": (
        "    transport: disk\n",
        "    transport: disk\n    codecs:\n      - type: zstd\n        levle: 3\n",
        ["11:9: targets.main.codecs.0.levle: unknown key; did you mean 'level'?"],
    ),
    "missing key": ("    target: main\n", "", ["11:3: jobs.nightly: missing key 'target'"]),
    "missing key in a block": ("    transport: disk\n", "", ["6:3: targets.main: missing key 'transport'"]),
    "missing type": ("type: local, ", "", ["4:3: transports.disk: missing key 'type'"]),
    "missing secret": ("    key: {file: /etc/main.key}\n", "", ["6:3: targets.main: missing key 'key'"]),
    "wrong type: number for a text": ("path: /srv/x", "path: 3", ["4:29: transports.disk.path: must be a path"]),
    "wrong type: text for a number": (
        "quiesce: no",
        "parallel: many",
        ["14:15: jobs.nightly.parallel: must be a valid integer"],
    ),
    "wrong type: bool for a number": (
        "quiesce: no",
        "parallel: true",
        ["14:15: jobs.nightly.parallel: must be a valid integer"],
    ),
    "wrong type: text for a list": (
        'machines: ["lab:*", "!lab:scratch-*"]',
        "machines: lab",
        ["12:15: jobs.nightly.machines: must be a list"],
    ),
    "wrong type: list for a mapping": (
        "{type: local, path: /srv/x}",
        "[x]",
        ["4:3: transports.disk: must be a mapping"],
    ),
    "section with nothing in it": (
        "  lab: {type: image}\n",
        "",
        [
            "1:1: hypervisors: must be a mapping",
            "11:16: jobs.nightly.machines.0: there is no hypervisor 'lab'; there are none",
            "11:25: jobs.nightly.machines.1: there is no hypervisor 'lab'; there are none",
        ],
    ),
    "third-party option of a wrong type": (
        "{type: local, path: /srv/x}",
        "{type: cloud, count: x}",
        ["4:30: transports.disk.count: must be a valid integer, unable to parse string as an integer"],
    ),
    "below the minimum": (
        "quiesce: no",
        "parallel: 0",
        ["14:15: jobs.nightly.parallel: must be greater than or equal to 1"],
    ),
    "negative count": (
        "quiesce: no",
        "keep: {daily: -1}",
        ["14:19: jobs.nightly.keep.daily: must be greater than or equal to 0"],
    ),
    "unknown time zone": (
        "quiesce: no",
        "timezone: Europe/Berln",
        ["14:15: jobs.nightly.timezone: must be the name of a time zone as in 'Europe/Berlin'; did you mean 'Europe"],
    ),
    "time zone that is a path": (
        "quiesce: no",
        "timezone: ../../../etc/localtime",
        ["14:15: jobs.nightly.timezone: must be the name of a time zone as in 'Europe/Berlin'"],
    ),
    "unknown targets of copies": (
        "quiesce: no",
        "copies: [mian, vault]",
        [
            "14:14: jobs.nightly.copies.0: there is no target 'mian'; did you mean 'main'?",
            "14:20: jobs.nightly.copies.1: there is no target 'vault'; known: main",
        ],
    ),
    "copy to the own target": (
        "quiesce: no",
        "copies: [main]",
        ["14:5: jobs.nightly.copies: must not name the job's own target"],
    ),
    "copies that are no list": ("quiesce: no", "copies: main", ["14:13: jobs.nightly.copies: must be a list"]),
    "unknown rule": (
        "quiesce: no",
        "keep: {dayly: 7}",
        ["14:12: jobs.nightly.keep.dayly: unknown key; did you mean 'daily'?"],
    ),
    "no such choice": ("quiesce: no", "quiesce: maybe", ["14:14: jobs.nightly.quiesce: must be 'yes', 'no' or 'try'"]),
    "no machines": ('["lab:*", "!lab:scratch-*"]', "[]", ["12:5: jobs.nightly.machines: "]),
    "selector without a hypervisor": (
        '"lab:*"',
        "web",
        ["12:16: jobs.nightly.machines.0: must be hypervisor:machine with * as in 'lab:web-*', or one such with ! "],
    ),
    "name with a space": (
        "  nightly:",
        "  'at night':",
        ["11:3: jobs.at night: a name is letters, digits and . _ - (64 at most, beginning with a letter or digit)"],
    ),
    "unknown transport": (
        "transport: disk",
        "transport: dsk",
        ["8:16: targets.main.transport: there is no transport 'dsk'; did you mean 'disk'?"],
    ),
    "unknown target": (
        "target: main",
        "target: offsite",
        ["13:13: jobs.nightly.target: there is no target 'offsite'; known: main"],
    ),
    "unknown hypervisors": (
        '["lab:*", "!lab:scratch-*"]',
        '["lap:*", "!farm:x"]',
        [
            "12:16: jobs.nightly.machines.0: there is no hypervisor 'lap'; did you mean 'lab'?",
            "12:25: jobs.nightly.machines.1: there is no hypervisor 'farm'; known: lab",
        ],
    ),
    "key twice": (
        "quiesce: no",
        "quiesce: no\n    target: main",
        ["15:5: jobs.nightly.target: this key is here twice, first on line 13"],
    ),
    "tab": ("    target: main", "\ttarget: main", ["13:1: not YAML: a tab cannot be used for indentation"]),
    "open bracket": ("{type: image}", "{type: image", ["3:11: not YAML: while parsing a flow mapping"]),
    "open quote": ("/etc/main.key", "'/etc/main.key", ["15:1: not YAML: while scanning a quoted scalar"]),
    "wrong indentation": ("    target: main", "   target: main", ["13:4: not YAML: "]),
    "two documents": ("jobs:", "---\njobs:", ["10:1: not YAML: expected a single document in the stream"]),
    "merge key": (
        "    target: main\n",
        "    target: main\n    <<: {parallel: 3}\n",
        ["14:5: jobs.nightly: merge keys (<<) are not supported"],
    ),
    "tag": ("disk: {", "disk: !secret {", ["4:9: transports.disk: YAML tags (!...) are not supported"]),
    "key that is a list": ("  nightly:", "  ? [a]\n  : 1\n  nightly:", ["11:5: jobs: a key must be a plain text"]),
    "control character": ("path: /srv/x", "path: /srv/\x07", ["4:34: character U+0007 is not allowed in YAML"]),
    "alias of nothing": ("target: main", "target: *main", ["13:13: not YAML: found undefined alias ..."]),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_a_mistake_is_named_where_it_is(
    tmp_path: Path, registry: Registry, old: str, new: str, expected: list[str]
) -> None:
    assert old in GOOD
    found = refused(tmp_path, registry, GOOD.replace(old, new, 1))
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path, registry: Registry) -> None:
    text = GOOD.replace("path:", "pth:").replace("target: main", "target: x").replace("quiesce: no", "quiesce: 7")
    places = [tuple(map(int, line.split(":")[:2])) for line in refused(tmp_path, registry, text)]
    assert places == [(4, 3), (4, 23), (13, 13), (14, 14)]


def test_an_unknown_type_lists_the_known_ones(tmp_path: Path, registry: Registry) -> None:
    (problem,) = refused(tmp_path, registry, GOOD.replace("type: local", "type: locl"))
    known = "(known: cloud, iscsi, local, nfs, s3, sftp, smb)"
    assert problem == f"4:16: transports.disk.type: unknown type 'locl'; did you mean 'local'? {known}"
    (problem,) = refused(tmp_path, registry, GOOD.replace("type: repository", "type: tape"))
    assert problem == "7:11: targets.main.type: unknown type 'tape' (known: image, repository)"
    codecs = GOOD.replace("    transport: disk\n", "    transport: disk\n    codecs: [{type: zstd}, {type: zst}]\n")
    (problem,) = refused(tmp_path, registry, codecs)
    assert problem.startswith("9:35: targets.main.codecs.1.type: unknown type 'zst'; did you mean 'zstd'? (known: ")


def test_a_type_whose_plugin_is_broken_or_disabled_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    info = tmp_path / "tape-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tape\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vbackup]\ntape = no_such_module_here\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry.load(disabled=["local"])
    problems = refused(tmp_path, registry, GOOD.replace("type: repository", "type: tape"))
    assert problems[0] == "4:16: transports.disk.type: the plugin 'local' is disabled"
    assert problems[1].startswith(
        "7:11: targets.main.type: the plugin 'tape' is broken: no_such_module_here cannot be imported: ModuleNotFound"
    )
    assert "tape" in caplog.text


def test_no_plugins_at_all(tmp_path: Path) -> None:
    assert refused(tmp_path, Registry(), GOOD) == [
        "2:15: hypervisors.lab.type: unknown type 'image' (known: none)",
        "4:16: transports.disk.type: unknown type 'local' (known: none)",
        "7:11: targets.main.type: unknown type 'repository' (known: none)",
    ]


def test_codecs_must_be_stated_when_the_usual_ones_are_not_installed(tmp_path: Path) -> None:
    registry = Registry.load(disabled=["zstd"])
    assert refused(tmp_path, registry, GOOD) == ["6:3: targets.main: missing key 'codecs'"]


BOMB = "a: &a [1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "1:1: the file is empty", id="empty"),
        pytest.param(b"# nothing\n", "1:1: the file is empty", id="only comments"),
        pytest.param(b"just text\n", "1:1: the file must be a mapping of sections (targets: ...)", id="text"),
        pytest.param(b"- a\n- b\n", "1:1: the file must be a mapping of sections (targets: ...)", id="list"),
        pytest.param(b"jobs:\n  a: \xff\xfe\n", "2:6: the file is not UTF-8 text", id="not UTF-8"),
        pytest.param(b"jobs: \x00\n", "1:7: character U+0000 is not allowed in YAML", id="NUL"),
        pytest.param(b"[" * 5000, "1:1: it is nested too deeply", id="deep"),
        pytest.param(b"jobs: &a [*a]\n", "1:7: jobs.0: an alias must not contain itself", id="endless alias"),
        pytest.param(BOMB.encode(), "more than 20000 values, aliases counted each time", id="bomb of aliases"),
        pytest.param(b"#" * ((1 << 20) + 1), "1:1: the file is larger than 1 MiB", id="huge"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, registry: Registry, content: bytes, expected: str) -> None:
    (problem,) = refused(tmp_path, registry, content)
    assert expected in problem


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path, registry: Registry) -> None:
    assert loaded(tmp_path, registry, "\ufeff" + GOOD).targets.keys() == {"main"}


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load(tmp_path / "none.yaml", registry)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, registry)


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VBACKUP_CONFIG", raising=False)
    monkeypatch.setattr("vbackup.config.loader.SYSTEM", tmp_path / "system.yaml")
    with pytest.raises(ConfigError, match=r"neither ./vbackup.yaml nor .*system.yaml"):
        find(None)
    (tmp_path / "system.yaml").touch()
    assert find(None) == tmp_path / "system.yaml"
    (tmp_path / "vbackup.yaml").touch()
    assert find(None) == Path("vbackup.yaml")
    monkeypatch.setenv("VBACKUP_CONFIG", "/from/environment")
    assert find(None) == Path("/from/environment")
    assert find(Path("/explicit")) == Path("/explicit")


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((ROOT / "config/vbackup.schema.json").read_text())
    assert committed == schema(Registry.load()), "run: vbackup schema > config/vbackup.schema.json"


def test_the_example_loads_and_follows_the_schema() -> None:
    path = ROOT / "config/vbackup.example.yaml"
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=./vbackup.schema.json\n")
    assert load(path, Registry.load()).jobs.keys() == {"nightly", "weekly-images"}
    committed = json.loads((ROOT / "config/vbackup.schema.json").read_text())
    jsonschema.Draft7Validator(committed).validate(YAML(typ="safe", pure=True).load(text))


def test_the_schema_knows_third_party_options_and_refuses_what_loading_refuses(registry: Registry) -> None:
    whole = schema(registry)
    jsonschema.Draft7Validator.check_schema(whole)
    validator = jsonschema.Draft7Validator(whole)
    data = YAML(typ="safe", pure=True).load(GOOD)
    data["transports"]["disk"] = {"type": "cloud", "deep": {"bucket": "x"}}
    validator.validate(data)
    data["transports"]["disk"] = {"type": "cloud", "deep": {"bukcet": "x"}}
    assert not validator.is_valid(data)
    data["transports"]["disk"] = {"type": "cloud"}
    data["targets"]["main"]["key"] = "literal"
    assert not validator.is_valid(data)
    data["targets"]["main"]["key"] = {"env": "A", "file": "/b"}
    assert not validator.is_valid(data)


def test_jobs_run_on_the_executor_that_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "vbackup.yaml"
    file.write_text("executor: {type: inprocess}\n")
    executor = load(file, Registry.load()).executor
    assert executor is not None
    assert executor.type == "inprocess"
    file.write_text("executor: {type: elsewhere}\n")
    with pytest.raises(ConfigError, match=r"vbackup.yaml:1:18: executor.type: must be 'inprocess'"):
        load(file, Registry.load())
