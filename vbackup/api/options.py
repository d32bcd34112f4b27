"""Bases for options: what stands under a ``type:`` in the YAML."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options of a plugin's class: frozen, and unknown keys are errors that name file, line and column."""

    model_config = ConfigDict(frozen=True, extra="forbid")
