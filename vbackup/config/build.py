"""The configuration's model with the options of all registered classes, and its JSON Schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from vbackup.api import PluginError
from vbackup.config.draft7 import draft7
from vbackup.config.models import Config, EncodedTargetEntry, Entry, TargetEntry, TransportEntry
from vbackup.guards.blame import told
from vbackup.registry import Registry
from vbackup.registry.described import described

DEFAULT_CODECS: tuple[dict[str, Any], ...] = ({"type": "zstd", "level": 3}, {"type": "aes-256-gcm"})
"""What a target that states no codecs gets, if they are installed."""


class _NothingInstalled(Entry):
    """Stands where no plugin registered anything: whatever the type, it is unknown."""

    model_config = ConfigDict(extra="allow")
    type: Literal[""]


def model(registry: Registry, types: Collection[str] | None = None) -> type[Config]:
    """Return `Config` with each entry a union, told apart by ``type``, of what ``registry`` has for its role.

    With ``types`` it only knows those, and the default codecs: plugins of which none is used may wait on.

    Raises: `PluginError` when the options of a class do not make a model.
    """
    defaults = {step["type"] for step in DEFAULT_CODECS}

    def used(classes: Mapping[str, type[Any]]) -> Mapping[str, type[Any]]:
        names = classes.keys() if types is None else classes.keys() & defaults.union(types)
        found = ((name, classes.get(name)) for name in sorted(names))  # a plugin that waited may turn out broken
        return {name: cls for name, cls in found if cls is not None}

    codec = _union("codecs", lambda _: Entry, used(registry.codecs))
    codecs = EncodedTargetEntry.model_fields["codecs"]
    if defaults <= registry.codecs.keys():
        codecs = FieldInfo.merge_field_infos(codecs, default=DEFAULT_CODECS, validate_default=True)
    many = tuple[codec, ...]  # type: ignore[valid-type]  # made at run time
    encoded = create_model("EncodedTargetEntry", __base__=EncodedTargetEntry, codecs=(many, codecs))
    hypervisors = _union("hypervisors", lambda _: Entry, used(registry.hypervisors))
    transports = _union("transports", lambda _: TransportEntry, used(registry.transports))
    targets = _union("targets", lambda cls: encoded if cls.encodes else TargetEntry, used(registry.targets))
    executor = _union("executors", lambda _: Entry, used(registry.executors))
    return create_model(
        "Config",
        __base__=Config,
        hypervisors=_entries(Config, "hypervisors", hypervisors),
        transports=_entries(Config, "transports", transports),
        targets=_entries(Config, "targets", targets),
        executor=(executor | SkipJsonSchema[None], Config.model_fields["executor"]),  # type: ignore[misc]  # at run time
    )


def schema(registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of the configuration, third-party options included.

    Raises: `PluginError` when the options of a class do not make one.
    """
    whole = draft7(described(model(registry)))
    for section in whole["properties"].values():
        if "patternProperties" in section:
            section.setdefault("additionalProperties", False)  # an alias that is none is refused, not overlooked
    return {**whole, "title": "vbackup configuration"}


def _entries(base: type[Config], name: str, entry: Any) -> Any:
    key = base.model_fields[name].annotation.__args__[0]  # type: ignore[union-attr]  # Mapping[Alias, ...]
    return (Mapping[key, entry], base.model_fields[name])  # type: ignore[valid-type]


def _union(role: str, base: Callable[[Any], type[Entry]], classes: Mapping[str, type[Any]]) -> Any:
    """Return the type of an entry; ``base`` tells, for a class, what its entries have beside the class's options."""
    models = [_entry(role, base(cls), name, cls) for name, cls in classes.items()]
    if not models:
        return _NothingInstalled
    if len(models) == 1:
        return models[0]
    return Annotated[Union[tuple(models)], Field(discriminator="type")]  # noqa: UP007 - a tuple made at run time


def _entry(role: str, base: type[Entry], name: str, cls: type[Any]) -> type[Entry]:
    try:
        kind = Field(description=f"which of the installed {role} it is; `vbackup plugins` lists them")
        return create_model(
            f"{role}_{name}",
            __base__=(base, cls.options),
            __doc__=inspect.cleandoc(cls.options.__doc__ or ""),
            type=(Literal[name], kind),  # type: ignore[arg-type]  # made at run time
        )
    except Exception as error:  # a stranger's model may do anything when it is inherited from
        raise PluginError(
            f"the options of {role} {name!r} cannot be made part of the configuration: {told(error)}",
            hint="`vbackup plugins` says whose they are: run without it, VBACKUP_DISABLED_PLUGINS=NAME",
        ) from error
