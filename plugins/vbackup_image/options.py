"""The options of ``type: image``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from vbackup.api import Name, Options

Format = Literal["qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc"]

BY_SUFFIX: Mapping[str, Format] = {
    ".qcow2": "qcow2",
    ".raw": "raw",
    ".img": "raw",
    ".vmdk": "vmdk",
    ".vdi": "vdi",
    ".vhdx": "vhdx",
    ".vhd": "vpc",
    ".vpc": "vpc",
}
"""The format is never probed: a guest can write a qcow2 header that names any file into its raw disk."""


class Image(Options):
    """An image file or block device: a path, or ``{path: ..., format: ...}``."""

    path: Path = Field(description="absolute")
    format: Format = Field(description="needed only where the file name does not tell: .qcow2, .raw, .img, .vmdk ...")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Let the schema know the short form too, and that the format may be left to the name."""
        item = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [{"type": "string"}, {**item, "required": ["path"]}]}

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        item = dict(value) if isinstance(value, dict) else {"path": value}
        path = item.get("path")
        if "format" not in item and isinstance(path, str | Path):
            known = "raw" if str(path).startswith("/dev/") else BY_SUFFIX.get(Path(path).suffix.lower())
            if known is None:
                raise ValueError(f"the name of {path} does not tell its format; write {{path: {path}, format: ...}}")
            item["format"] = known
        return item

    @model_validator(mode="after")
    def _is_absolute(self) -> Image:
        if not self.path.is_absolute():
            raise ValueError(f"{self.path} must be an absolute path")
        return self


class ImageOptions(Options):
    """What stands under ``type: image``."""

    machines: dict[Name, tuple[Image, ...]] = Field(
        default_factory=dict, description="the images of each machine, in order: disk0, disk1, ..."
    )
    storage: Path | None = Field(default=None, description="the directory for machines restored under a new name")

    @model_validator(mode="after")
    def _images_are_used_once(self) -> ImageOptions:
        paths = [image.path for images in self.machines.values() for image in images]
        twice = {str(path) for path in paths if paths.count(path) > 1}
        if twice:
            raise ValueError(f"listed more than once: {', '.join(sorted(twice))}")
        return self
