"""What the YAML says of the wrappers around a transport, and what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from vbackup.api import AccessDenied, ConfigError, Options, PluginError, hookimpl
from vbackup.config import Config, load, schema
from vbackup.config import quantities as q
from vbackup.config.wrapping import Wrapping
from vbackup.guards.transport import GuardedTransport
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.registry.roles import ROLES
from vbackup.testing.transports import MemoryTransport
from vbackup.wrappers.cache import CachingTransport
from vbackup.wrappers.limit import LimitedTransport
from vbackup.wrappers.log import LoggingTransport
from vbackup.wrappers.parallel import ParallelTransport
from vbackup.wrappers.readonly import ReadOnlyTransport
from vbackup.wrappers.retry import RetryingTransport

ALL = """\
transports:
  disk:
    type: memory
    retry: {deadline: 1.5h}
    limit:
      upload: 20MiB/s
      download: 50M/s
      timezone: Europe/Berlin
      at:
        - {days: mon-fri, from: "08:00", to: "18:00", upload: 5MiB/s}
    parallel: 8
    cache: {path: /var/cache/x, size: 10GiB}
    read_only: true
    log: true
"""


def plugin(transport: Any) -> Any:
    class Plugin:
        @hookimpl
        def vbackup_register_transports(self, register: Any) -> None:
            register(transport)

    return Plugin()


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry()
    registry.register(plugin(MemoryTransport), "memory")
    return registry


def loaded(tmp_path: Path, registry: Registry, text: str) -> Config:
    path = tmp_path / "vbackup.yaml"
    path.write_text(text)
    return load(path, registry)


def wrapping(tmp_path: Path, registry: Registry, text: str) -> Wrapping:
    entry = loaded(tmp_path, registry, text).transports["disk"]
    assert isinstance(entry, Wrapping)
    return entry


def test_every_key_is_understood(tmp_path, registry):
    disk = wrapping(tmp_path, registry, ALL)
    assert disk.retry is not None
    assert disk.retry.deadline == 5400
    assert disk.limit is not None
    assert (disk.limit.upload, disk.limit.download) == (20 << 20, 50 << 20)
    assert disk.parallel == 8
    assert disk.cache is not None
    assert (disk.cache.path, disk.cache.size, disk.cache.prefixes) == (Path("/var/cache/x"), 10 << 30, ("packs",))
    assert (disk.read_only, disk.log) == (True, True)
    jsonschema.Draft7Validator(schema(registry)).validate(YAML(typ="safe", pure=True).load(ALL))


def test_without_any_there_are_only_retries(tmp_path, registry):
    disk = wrapping(tmp_path, registry, "transports: {disk: {type: memory}}")
    assert (disk.retry, disk.limit, disk.parallel, disk.cache, disk.read_only, disk.log) == (
        None,
        None,
        None,
        None,
        False,
        False,
    )


def test_they_do_not_say_where_a_place_is(tmp_path, registry):
    assert loaded(tmp_path, registry, ALL).transports["disk"].model_dump() == {"type": "memory"}


MISTAKES = {
    "unknown key": ("parallel: 8", "paralel: 8", "11:5: paralel: unknown key; did you mean 'parallel'?"),
    "unknown key of cache": (
        "size: 10GiB",
        "sise: 1, size: 10GiB",
        "12:33: cache.sise: unknown key; did you mean 'size'?",
    ),
    "retry without a deadline": ("deadline: 1.5h", "", "4:5: retry: missing key 'deadline'"),
    "no unit": ("1.5h", "600", "4:23: retry.deadline: must be a time with its unit, as in 30s, 10m, 12h or"),
    "no time": ("1.5h", "soon", "4:23: retry.deadline: must be a time with its unit"),
    "far too long": ("1.5h", "9999999d", "4:23: retry.deadline: must be a time"),
    "size for a rate": ("20MiB/s", "20MiB", "6:15: limit.upload: must be a rate in bytes as in 500K/s or "),
    "bits": ("20MiB/s", "20Mbit/s", "6:15: limit.upload: must be a rate in bytes"),
    "number for a rate": ("20MiB/s", "20", "6:15: limit.upload: must be a rate in bytes"),
    "nothing at all": ("20MiB/s", "0K/s", "6:15: limit.upload: must be a rate in bytes"),
    "no zone": ("Europe/Berlin", "Europe/Berln", "8:17: limit.timezone: must be the name of a time zone"),
    "no day": ("mon-fri", "mo-fr", "10:18: limit.at.0.days: must be days as in mon-fri or sat,sun"),
    "no time of day": ('"08:00"', "8am", '10:33: limit.at.0.from: must be a time of day in quotes, as in "'),
    "no hour of the day": ('"18:00"', '"25:00"', "10:46: limit.at.0.to: must be a time of day"),
    "no time at all": ('"18:00"', '"08:00"', "10:11: limit.at.0: must not end when it begins"),
    "a rule without a limit": (", upload: 5MiB/s", "", "10:11: limit.at.0: must have upload or download"),
    "no number": ("parallel: 8", "parallel: many", "11:15: parallel: must be a valid integer"),
    "none at once": ("parallel: 8", "parallel: 0", "11:15: parallel: must be greater than or equal to 1"),
    "no path": ("path: /var/cache/x, ", "", "12:5: cache: missing key 'path'"),
    "relative path": ("/var/cache/x", "x", "12:19: cache.path: must be an absolute path"),
    "no size": ("10GiB", "10GB", "12:39: cache.size: must be a size as in 500M or 1.5GiB"),
    "tiny cache": ("10GiB", "10M", "12:39: cache.size: must be at least 64MiB"),
    "neither yes nor no": ("read_only: true", "read_only: maybe", "13:16: read_only: must be a valid bool"),
}
"""What stands instead of what, and the problem: the path without `transports.disk.` before it."""


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_where_it_is(tmp_path, registry, old, new, expected):
    assert old in ALL
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, registry, ALL.replace(old, new, 1))
    (line,) = caught.value.message.splitlines()
    place, path = expected.split(": ", 1)
    assert line.startswith(f"{tmp_path}/vbackup.yaml:{place}: transports.disk.{path}")


def test_a_limit_must_limit_something(tmp_path, registry):
    with pytest.raises(ConfigError, match=r"1:35: transports\.disk\.limit: must have upload, download or at"):
        loaded(tmp_path, registry, "transports: {disk: {type: memory, limit: {}}}")


def test_times_of_the_old_yaml_are_no_numbers_by_accident(tmp_path, registry):
    """In YAML 1.1 a plain 18:00 is the number 1080."""
    text = ALL.replace('"18:00"', "18:00")
    assert wrapping(tmp_path, registry, text).limit == wrapping(tmp_path, registry, ALL).limit
    with pytest.raises(ConfigError, match="must be a time of day in quotes"):
        loaded(tmp_path, registry, f"%YAML 1.1\n---\n{text}")


SIZES = {"0": 0, "700B": 700, "1k": 1024, "500M": 500 << 20, "1.5 GiB": 3 << 29, "2T": 2 << 40, "1p": 1 << 50}
SPANS = {"0s": 0, "30s": 30, "10m": 600, "1.5h": 5400, "12 h": 43200, "30d": 2592000, "4w": 2419200}
TIMES = {"00:00": 0, "08:30": 510, "23:59": 1439, "24:00": 1440}
DAYS = {"mon": {0}, "mon-fri": {0, 1, 2, 3, 4}, "sat,sun": {5, 6}, "sun-mon, wed": {6, 0, 2}, "fri-thu": set(range(7))}
BAD = {
    q.size: ["", "x", "-1", "5GB", "5 apples", "1e3", "1/s", "٣", "9" * 310 + "P", "1." + "9" * 5000],
    q.rate: ["", "5", "5M", "5MB/s", "/s", "0.1/s", "5M/s/s", "9" * 310 + "/s"],
    q.seconds: ["", "5", "m", "-5m", "5 minutes", "5y", "1000001h", "٣m", "9" * 310 + "s"],
    q.minute_of_day: ["", "8:00", "24:01", "08:60", "08:00:00", "0800", "٣٨:٣٣"],
    q.days: ["", "monday", "mon-", "mon-tue-wed", "Mon", "mon,,tue", "0"],
}


@pytest.mark.parametrize(
    ("parse", "text", "meant"),
    [(q.size, *item) for item in SIZES.items()]
    + [(q.rate, f"{text}/s", size) for text, size in SIZES.items() if size]
    + [(q.seconds, *item) for item in SPANS.items()]
    + [(q.minute_of_day, *item) for item in TIMES.items()]
    + [(q.days, *item) for item in DAYS.items()],
)
def test_quantities(parse, text, meant):
    assert parse(text) == meant


@pytest.mark.parametrize(("parse", "text"), [(parse, text) for parse, texts in BAD.items() for text in texts])
def test_what_is_no_quantity(parse, text):
    with pytest.raises(ValueError, match="must be"):
        parse(text)


def limit(tmp_path, registry, rules: str, base: str = "upload: 100/s, timezone: Europe/Berlin"):
    text = f"transports: {{disk: {{type: memory, limit: {{{base}, at: {rules}}}}}}}"
    found = wrapping(tmp_path, registry, text).limit
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("rules", "moment", "upload", "download"),
    [
        # 2026-01-05 is a Monday; Berlin is an hour ahead of UTC in winter, two in summer.
        ('[{from: "08:00", to: "18:00", upload: 5/s}]', "2026-01-05T06:59", 100, None),
        ('[{from: "08:00", to: "18:00", upload: 5/s}]', "2026-01-05T07:00", 5, None),
        ('[{from: "08:00", to: "18:00", upload: 5/s}]', "2026-07-06T06:00", 5, None),
        ('[{from: "08:00", to: "18:00", upload: 5/s}]', "2026-01-05T16:59", 5, None),
        ('[{from: "08:00", to: "18:00", upload: 5/s}]', "2026-01-05T17:00", 100, None),
        ("[{days: sat-sun, download: 5/s}]", "2026-01-09T22:59", 100, None),
        ("[{days: sat-sun, download: 5/s}]", "2026-01-09T23:00", 100, 5),
        ("[{days: sat-sun, download: 5/s}]", "2026-01-11T22:59", 100, 5),
        ("[{days: sat-sun, download: 5/s}]", "2026-01-11T23:00", 100, None),
        ('[{days: fri, from: "22:00", to: "06:00", upload: 5/s}]', "2026-01-09T20:59", 100, None),
        ('[{days: fri, from: "22:00", to: "06:00", upload: 5/s}]', "2026-01-09T21:00", 5, None),
        ('[{days: fri, from: "22:00", to: "06:00", upload: 5/s}]', "2026-01-10T04:59", 5, None),
        ('[{days: fri, from: "22:00", to: "06:00", upload: 5/s}]', "2026-01-10T05:00", 100, None),
        ('[{days: fri, from: "22:00", to: "06:00", upload: 5/s}]', "2026-01-09T04:00", 100, None),
        ('[{days: sun, from: "22:00", to: "06:00", upload: 5/s}]', "2026-01-05T04:00", 5, None),
        ("[{days: mon, upload: 5/s}, {upload: 7/s, download: 8/s}]", "2026-01-05T12:00", 5, 8),
        ("[{days: mon, upload: 5/s}, {upload: 7/s, download: 8/s}]", "2026-01-06T12:00", 7, 8),
    ],
)
def test_limits_by_time_of_day(tmp_path, registry, rules, moment, upload, download):
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    found = limit(tmp_path, registry, rules)
    assert (found.upload_at(now), found.download_at(now)) == (upload, download)


def test_the_time_of_day_is_the_machines_by_default(tmp_path, registry, monkeypatch):
    found = limit(tmp_path, registry, '[{from: "08:00", to: "09:00", upload: 5/s}]', "upload: 100/s")
    now = datetime(2026, 1, 5, 23, 30, tzinfo=UTC)
    for name, rate in (("Asia/Tokyo", 5), ("UTC", 100)):
        monkeypatch.setenv("TZ", name)
        assert found.upload_at(now) == rate


@pytest.mark.parametrize("key", sorted(Wrapping.model_fields))
def test_an_option_of_a_plugin_must_not_be_named_as_a_wrapper(key):
    options = type("Taken", (Options,), {"__annotations__": {key: int}, key: 1})

    class Taken(MemoryTransport):
        name: ClassVar[str] = "taken"

    Taken.options: type[BaseModel] = options  # type: ignore[misc]
    with pytest.raises(PluginError, match=f"Taken use a key that is vbackup's own: {key}"):
        Registry().register(plugin(Taken), "strange")


def test_just_the_keys_of_wrappers_are_reserved():
    (role,) = (role for role in ROLES if role.name == "transports")
    assert role.reserved == {"type", *Wrapping.model_fields}


def site_of(tmp_path, registry, text: str) -> Site:
    return Site(loaded(tmp_path, registry, text), registry, state_dir=tmp_path / "state", cache_dir=tmp_path / "caches")


def test_wrappers_are_put_around_in_their_order(tmp_path, registry):
    with site_of(tmp_path, registry, ALL.replace("/var/cache/x", f"{tmp_path}/cache")) as site:
        transport: Any = site.transport("disk")
        found = []
        while hasattr(transport, "inner"):
            found.append(type(transport))
            transport = transport.inner
        assert type(transport) is MemoryTransport
    assert found == [
        CachingTransport,
        RetryingTransport,
        ReadOnlyTransport,
        LimitedTransport,
        ParallelTransport,
        LoggingTransport,
        GuardedTransport,
    ]


def test_only_what_is_asked_for_is_put_around(tmp_path, registry):
    with site_of(tmp_path, registry, "transports: {disk: {type: memory}}") as site:
        transport: Any = site.transport("disk")
        assert (type(transport), type(transport.inner)) == (RetryingTransport, GuardedTransport)
        assert transport.deadline_seconds == 600


def test_a_transport_for_reading_says_its_name(tmp_path, registry):
    with (
        site_of(tmp_path, registry, "transports: {disk: {type: memory, read_only: true}}") as site,
        pytest.raises(AccessDenied, match="transport disk is for reading only"),
    ):
        site.transport("disk").put("a", b"1")


def test_a_site_reads_past_its_caches_when_told(tmp_path, registry):
    text = f"transports: {{disk: {{type: memory, cache: {{path: {tmp_path}/cache, size: 64M}}}}}}"
    with site_of(tmp_path, registry, text) as site:
        transport: Any = site.transport("disk")
        transport.put("packs/a", b"1")
        assert transport.get("packs/a") == b"1"
        transport.inner.put("packs/a", b"2")  # as another host would
        assert transport.get("packs/a") == b"1"
        with site.past_caches():
            assert transport.get("packs/a") == b"2"
        assert transport.get("packs/a") == b"2"


def test_a_target_that_writes_files_is_refused_on_a_transport_for_reading(tmp_path):
    """It would not ask the transport."""
    text = f"""\
transports: {{disk: {{type: local, path: {tmp_path}, read_only: true}}}}
targets: {{main: {{type: image, transport: disk}}}}
"""
    opened = site_of(tmp_path, Registry.load(), text)
    with opened as site, pytest.raises(ConfigError, match=r"target main writes .*read_only"):
        site.target("main")
