"""What stands after ``hypervisor:`` in a selector, and which machines it means.

* ``web-*``: the name, with the wildcards of `fnmatch`;
* ``/DC0/vm/prod/*``, with a slash first: the folder, a slash and the name; ``*`` also matches slashes;
* ``tag=backup/daily``, ``Owner=web*``: a label by its key, and its value with wildcards. A machine whose name looks
  like that is meant by it as well.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from vbackup.api import MachineRef

_SOME = 5


def matches(machine: MachineRef, pattern: str) -> bool:
    """Whether ``pattern`` means a machine."""
    if fnmatch.fnmatchcase(machine.name, pattern):
        return True
    if pattern.startswith("/"):
        return bool(machine.folder) and fnmatch.fnmatchcase(f"{machine.folder.rstrip('/')}/{machine.name}", pattern)
    key, equals, value = pattern.partition("=")
    return bool(equals) and any(
        key == label and fnmatch.fnmatchcase(labelled, value) for label, labelled in machine.labels
    )


def names(alias: str, machine: MachineRef, text: str) -> bool:
    """Whether a text of the command line means a machine: ``hypervisor:what`` with wildcards in both, or only what."""
    if matches(machine, text) or fnmatch.fnmatchcase(f"{alias}:{machine.name}", text):
        return True
    hypervisor, colon, pattern = text.partition(":")
    return bool(colon) and fnmatch.fnmatchcase(alias, hypervisor) and matches(machine, pattern)


def examples(machines: Iterable[tuple[str, MachineRef]]) -> str:
    """Return a phrase with a few machines and labels that there are, for whoever has matched none."""
    found = list(machines)
    named = [f"{alias}:{machine.name}" for alias, machine in found]
    labels = sorted({f"{alias}:{key}={value}" for alias, machine in found for key, value in machine.labels})
    folders = sorted({f"{alias}:{machine.folder}/*" for alias, machine in found if machine.folder})
    parts = [_some(each) for each in (named, folders, labels) if each]
    return f"there are {', '.join(parts)}" if parts else "there are no machines"


def _some(found: Sequence[str]) -> str:
    return ", ".join([*found[:_SOME], *(["..."] if len(found) > _SOME else [])])
