"""Groups: machines that belong together, in the order in which they are started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, StringConstraints, model_validator

from vbackup.api import Options
from vbackup.config.document import Document, Path_, Problem, dotted
from vbackup.config.quantities import Seconds, Written
from vbackup.config.words import YesNo

MEMBER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}:[^/*?\x00-\x1f\x7f]+$"
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})", re.ASCII)

_WITHIN = 300.0


class Address(NamedTuple):
    """Where something listens."""

    host: str
    port: int


def _address(text: str) -> Address:
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise ValueError("must be an address and a port in quotes, as in '10.0.0.2:8080' or '[2001:db8::2]:80'")
    return Address(found[1] or found[2], int(found[3]))


class Ready(Options):
    """What must be so before the next machine is started: all that is stated, in this order."""

    agent: YesNo = Field(default=False, description="the agent in the guest answers")
    tcp: Annotated[Address, Written(_address, r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}$")] | None = Field(
        default=None, description="something takes connections there: address:port"
    )
    delay: Seconds | None = Field(default=None, description="that much time has passed then (10s, 2m)")
    within: Seconds = Field(default=_WITHIN, description="how long agent and tcp may take; 5m without it")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.agent and self.tcp is None and self.delay is None:
            raise ValueError("must say what to wait for: agent, tcp or delay")
        return self


class Member(Options):
    """One machine of a group."""

    machine: Annotated[str, StringConstraints(pattern=MEMBER)] = Field(description="hypervisor:machine, without globs")
    ready: Ready | None = Field(
        default=None, description="when the next one may be started; without it, once this one is started"
    )


class GroupEntry(Options):
    """Machines that are captured at one moment, as near as it can be, and restored together."""

    machines: tuple[Member, ...] = Field(min_length=1, description="in the order in which they are started")


def doubled_members(document: Document) -> list[Problem]:
    """Find machines that are in groups more than once. Works on any document, valid or not."""
    first: dict[str, Path_] = {}
    problems = []
    for path, machine in members(document.data):
        if machine in first:
            place = document.values[first[machine]]
            message = f"{machine!r} is in group {first[machine][1]!r} already, on line {place.line}"
            problems.append(Problem(document.values[path], dotted(path), message))
        first.setdefault(machine, path)
    return problems


def members(data: Any) -> Iterator[tuple[Path_, str]]:
    """Yield each member of each group: where it stands, and its machine."""
    groups = data.get("groups") if isinstance(data, dict) else None
    for name, group in groups.items() if isinstance(groups, dict) else ():
        machines = group.get("machines") if isinstance(group, dict) else None
        for index, member in enumerate(machines if isinstance(machines, list) else ()):
            if isinstance(member, dict) and isinstance(member.get("machine"), str):
                yield ("groups", name, "machines", index, "machine"), member["machine"]
