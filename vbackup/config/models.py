"""The configuration's shape. What stands under a ``type:`` is added from the registered classes; see `build`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from vbackup.api import Key, Options, Quiesce, SecretRef
from vbackup.config.groups import GroupEntry
from vbackup.config.timezones import checked
from vbackup.config.words import YesNo
from vbackup.config.wrapping import Wrapping

ALIAS = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
SELECTOR = rf"^!?({_NAME}:[^\x00-\x1f\x7f]+|@{_NAME})$"

Alias = Annotated[str, StringConstraints(pattern=ALIAS)]
"""The name of an entry."""

Selector = Annotated[str, StringConstraints(pattern=SELECTOR)]
"""``hypervisor:what`` (see `vbackup.jobs.selectors`) or ``@group``; a leading ``!`` leaves out what it matches."""

Machines = Annotated[str, StringConstraints(pattern=rf"^{_NAME}:[^\x00-\x1f\x7f]+$")]
"""``hypervisor:what`` alone."""

Count = Annotated[int, Strict(), Field(ge=0)]


def _quiesce(value: Any) -> Any:
    # `no` is a text in YAML 1.2 and false in YAML 1.1; both mean what they say.
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class Entry(Options):
    """An entry with a ``type:``.

    Each one is also an instance of the ``options`` model of the class registered by that name, whose fields are the
    entry's other keys: it is what the class is constructed with.
    """

    type: str


class TransportEntry(Entry, Wrapping):
    """A place for bytes: a plugin's, and what the framework does around each."""


class TargetEntry(Entry):
    """A place for restore points."""

    transport: Alias = Field(description="the alias of an entry under transports")


class EncodedTargetEntry(TargetEntry):
    """One whose data goes through codecs and is kept under a key; see `Target.encodes`."""

    codecs: tuple[Entry, ...] = Field(description="the steps that encode a chunk, in order")
    key: SecretRef = Field(description="where the key (or passphrase) of the target is")


class Keep(Options):
    """Which restore points of each machine `vbackup prune` keeps: those that at least one rule keeps."""

    last: Count | None = Field(default=None, description="the newest so many points")
    hourly: Count | None = Field(default=None, description="the newest of each of the last so many hours with points")
    daily: Count | None = Field(default=None, description="the newest of each of the last so many days with points")
    weekly: Count | None = Field(default=None, description="the same of weeks, from Monday to Sunday (ISO 8601)")
    monthly: Count | None = Field(default=None, description="the same of months")
    yearly: Count | None = Field(default=None, description="the same of years")


class JobEntry(Options):
    """Which machines go where."""

    machines: tuple[Selector, ...] = Field(
        min_length=1,
        description="hypervisor:name with * and ?, hypervisor:/folder/name, "
        "hypervisor:label=value or @group; a leading ! leaves out",
    )
    exclude_disks: Mapping[Machines, tuple[Key, ...]] = Field(
        default_factory=dict,
        description="disks that are not backed up, by their keys: {lab:db: [vdb]}; machines as above, without @ and !",
        json_schema_extra={"additionalProperties": False},
    )
    target: Alias = Field(description="the alias of an entry under targets")
    copies: tuple[Alias, ...] = Field(
        default=(),
        description="aliases of other targets; each point is copied there after the run",
        json_schema_extra={"uniqueItems": True},
    )
    quiesce: Annotated[
        Quiesce,
        BeforeValidator(_quiesce),
        WithJsonSchema({"enum": ["yes", "no", "try", True, False]}),
    ] = Field(default=Quiesce.TRY, description="freeze the guest's file systems: yes (or fail), no, try")
    memory: YesNo = Field(
        default=False, description="keep the memory of running machines, too: yes, no; a restored one goes on from it"
    )
    parallel: Annotated[int, Strict(), Field(ge=1, le=256)] = Field(
        default=2,
        description="machines at once; all of a group are captured at once, and copied so many at a time",
    )
    keep: Keep | None = Field(
        default=None,
        description="which points of this job stay, in its target and where they are copied to; all without it. "
        "Hosts that share a target need jobs of different names.",
    )
    timezone: Annotated[str, AfterValidator(checked)] | None = Field(
        default=None,
        description="IANA name (Europe/Berlin) of the zone whose days and hours count in keep; else this machine's",
    )

    @field_validator("copies")
    @classmethod
    def _copies_are_elsewhere(cls, copies: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("target") in copies:
            raise ValueError("must not name the job's own target")
        if len(set(copies)) != len(copies):
            raise ValueError("must not name a target twice")
        return copies


class Config(Options):
    """A whole configuration: entries by alias."""

    hypervisors: Mapping[Alias, Entry] = Field(default_factory=dict)
    transports: Mapping[Alias, Entry] = Field(default_factory=dict)
    targets: Mapping[Alias, TargetEntry] = Field(default_factory=dict)
    groups: Mapping[Alias, GroupEntry] = Field(default_factory=dict)
    jobs: Mapping[Alias, JobEntry] = Field(default_factory=dict)
    executor: Entry | None = Field(default=None, description="what the work of jobs runs on; without it `inprocess`")
