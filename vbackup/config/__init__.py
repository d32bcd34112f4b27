"""The one YAML file: found, read, checked against what the plugins understand."""

from vbackup.config.build import schema
from vbackup.config.groups import GroupEntry, Member, Ready
from vbackup.config.loader import find, load
from vbackup.config.models import Config, Entry, JobEntry, Keep, TargetEntry
from vbackup.config.timezones import zone

__all__ = [
    "Config",
    "Entry",
    "GroupEntry",
    "JobEntry",
    "Keep",
    "Member",
    "Ready",
    "TargetEntry",
    "find",
    "load",
    "schema",
    "zone",
]
