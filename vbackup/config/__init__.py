"""The one YAML file: found, read, checked against what the plugins understand."""

from vbackup.config.build import schema
from vbackup.config.loader import find, load
from vbackup.config.models import Config, Entry, JobEntry, Keep, TargetEntry
from vbackup.config.timezones import zone

__all__ = ["Config", "Entry", "JobEntry", "Keep", "TargetEntry", "find", "load", "schema", "zone"]
