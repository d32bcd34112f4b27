"""Objects in memory."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from vbackup.api import Options
from vbackup.testing.transports import MemoryTransport


class PigeonOptions(Options):
    """Options of ``type: pigeon``."""

    timeout: float = Field(default=60, ge=1, le=3600, description="seconds that the store may take for an answer")


class PigeonTransport(MemoryTransport):
    """The transport of the kit."""

    name: ClassVar[str] = "pigeon"
    options: ClassVar[type[BaseModel]] = PigeonOptions
