"""Words that YAML 1.1 and 1.2 read differently: ``no`` is false in the one and a text in the other."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Strict, WithJsonSchema


def _as_bool(value: Any) -> Any:
    return {"yes": True, "no": False}.get(value, value) if isinstance(value, str) else value


YesNo = Annotated[bool, Strict(), BeforeValidator(_as_bool), WithJsonSchema({"enum": ["yes", "no", True, False]})]
"""A truth, written as yes, no, true or false."""
