"""What an entry under ``transports:`` has beside its plugin's options: the wrappers around any transport."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, Strict, field_validator, model_validator

from vbackup.api import Options
from vbackup.config.quantities import Days, MinuteOfDay, Rate, Seconds, Size
from vbackup.config.timezones import checked, zone

_DAY = 24 * 60
_SMALLEST_CACHE = 64 << 20


class RetryEntry(Options):
    """How patient it is."""

    deadline: Seconds = Field(description="how long the store may be away before an operation fails, as 30m")


class LimitRule(Options):
    """Other limits at certain times."""

    days: Days | None = Field(default=None, description="mon-fri or sat,sun: the days it begins on; every day")
    start: MinuteOfDay = Field(
        default=0, alias="from", description='from when on, as "08:00"', json_schema_extra={"default": "00:00"}
    )
    end: MinuteOfDay = Field(
        default=_DAY,
        alias="to",
        description='until when; before `from` it is of the next day, as from "22:00" to "06:00"',
        json_schema_extra={"default": "24:00"},
    )
    upload: Rate | None = Field(default=None, description="20MiB/s; without it, what applies otherwise")
    download: Rate | None = Field(default=None, description="20MiB/s; without it, what applies otherwise")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.upload is None and self.download is None:
            raise ValueError("must have upload or download")
        if self.start == self.end or self.start == _DAY:
            raise ValueError("must not end when it begins")
        return self

    def applies(self, moment: datetime) -> bool:
        """Whether ``moment``, in the time zone that counts, is within."""
        minute, today = moment.hour * 60 + moment.minute, moment.weekday()
        if self.start < self.end:
            return self.start <= minute < self.end and self._is_on(today)
        return (minute >= self.start and self._is_on(today)) or (minute < self.end and self._is_on((today - 1) % 7))

    def _is_on(self, day: int) -> bool:
        return self.days is None or day in self.days


class LimitEntry(Options):
    """How fast it may be, of each process."""

    upload: Rate | None = Field(default=None, description="bytes a second as 20MiB/s; without it, no limit")
    download: Rate | None = Field(default=None, description="bytes a second as 20MiB/s; without it, no limit")
    at: tuple[LimitRule, ...] = Field(default=(), description="other limits at certain times; the first that applies")
    timezone: Annotated[str, AfterValidator(checked)] | None = Field(
        default=None, description="IANA name (Europe/Berlin) of the zone whose times count in at; else this machine's"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.upload is None and self.download is None and not self.at:
            raise ValueError("must have upload, download or at")
        return self

    def upload_at(self, moment: datetime) -> int | None:
        """Return the bytes a second that may be sent at ``moment``, which is aware; None: all that there are."""
        return next((r.upload for r in self._rules(moment) if r.upload is not None), self.upload)

    def download_at(self, moment: datetime) -> int | None:
        """Return the bytes a second that may be received at ``moment``, likewise."""
        return next((r.download for r in self._rules(moment) if r.download is not None), self.download)

    def _rules(self, moment: datetime) -> list[LimitRule]:
        if not self.at:
            return []
        local = moment.astimezone(zone(self.timezone))
        return [rule for rule in self.at if rule.applies(local)]


class CacheEntry(Options):
    """What is read is kept on this host."""

    path: Path = Field(description="an absolute path of a directory that is for this only")
    size: Size = Field(description="bytes at the most, as 10GiB")
    prefixes: tuple[str, ...] = Field(
        default=("packs",),
        min_length=1,
        description="below which names of objects; those must say what is in them, as a repository's packs do",
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path

    @field_validator("size")
    @classmethod
    def _large_enough(cls, size: int) -> int:
        if size < _SMALLEST_CACHE:
            raise ValueError(f"must be at least {_SMALLEST_CACHE >> 20}MiB")
        return size


class Wrapping(Options):
    """The keys that an entry of every type may have; see `vbackup.wrappers`."""

    # They say how a place is used and not where it is: so they are left out where an entry is shown as a location.
    retry: RetryEntry | None = Field(
        default=None, exclude=True, description="trying again while the store is away; for 10 minutes without it"
    )
    limit: LimitEntry | None = Field(default=None, exclude=True, description="bandwidth; without it, all there is")
    parallel: Annotated[int, Strict(), Field(ge=1, le=256)] | None = Field(
        default=None, exclude=True, description="operations at once, of each process; without it, any number"
    )
    cache: CacheEntry | None = Field(default=None, exclude=True, description="a local cache of what is read")
    read_only: Annotated[bool, Strict()] = Field(
        default=False, exclude=True, description="refuse whatever would change the store"
    )
    log: Annotated[bool, Strict()] = Field(
        default=False, exclude=True, description="log each operation (at info: vbackup -v)"
    )
