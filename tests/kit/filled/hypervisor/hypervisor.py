"""Machines in memory."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from vbackup.api import Options
from vbackup.testing.hypervisors import FakeHypervisor


class ToyOptions(Options):
    """Options of ``type: toy``."""

    timeout: float = Field(default=60, ge=1, le=3600, description="seconds that the hypervisor may take for an answer")


class ToyHypervisor(FakeHypervisor):
    """The hypervisor of the kit."""

    name: ClassVar[str] = "toy"
    options: ClassVar[type[BaseModel]] = ToyOptions
