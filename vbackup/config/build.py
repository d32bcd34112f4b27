"""The configuration's model with the options of all registered classes, and its JSON Schema."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from vbackup.api import PluginError
from vbackup.config.draft7 import draft7
from vbackup.config.models import Config, EncodedTargetEntry, Entry, TargetEntry, TransportEntry
from vbackup.guards.blame import is_ours, told
from vbackup.registry import Registry
from vbackup.registry.described import described

DEFAULT_CODECS: tuple[dict[str, Any], ...] = ({"type": "zstd", "level": 3}, {"type": "aes-256-gcm"})
"""What a target that states no codecs gets, if they are installed."""

Make = Callable[[str, type[Entry], str, type[Any]], type[Entry]]
"""Makes the model of an entry of a role, from what its entries have beside the options, the name and the class."""
_log = logging.getLogger(__name__)


class _NothingInstalled(Entry):
    """Stands where no plugin registered anything: whatever the type, it is unknown."""

    model_config = ConfigDict(extra="allow")
    type: Literal[""]


def model(registry: Registry, types: Collection[str] | None = None) -> type[Config]:
    """Return `Config` with each entry a union, told apart by ``type``, of what ``registry`` has for its role.

    With ``types`` it only knows those, and the default codecs: plugins of which none is used may wait on.

    Raises: `PluginError` when the options of a class do not make a model.
    """
    return _model(registry, types, _entry)


def open_model(registry: Registry) -> tuple[type[Config], dict[str, Any]]:
    """Return the `model` of all, and its JSON Schema. Options that make none are logged: anything goes there."""
    try:
        whole = _model(registry, None, _entry)
        return whole, described(whole)
    except PluginError:
        whole = _model(registry, None, partial(_describable, registry))
        return whole, described(whole)


def _model(registry: Registry, types: Collection[str] | None, make: Make) -> type[Config]:
    defaults = {step["type"] for step in DEFAULT_CODECS}

    def used(classes: Mapping[str, type[Any]]) -> Mapping[str, type[Any]]:
        names = classes.keys() if types is None else classes.keys() & defaults.union(types)
        found = ((name, classes.get(name)) for name in sorted(names))  # a plugin that waited may turn out broken
        return {name: cls for name, cls in found if cls is not None}

    def union(role: str, base: Callable[[Any], type[Entry]]) -> Any:
        classes = used(getattr(registry, role))
        return _union([make(role, base(cls), name, cls) for name, cls in classes.items()])

    codec = union("codecs", lambda _: Entry)
    codecs = EncodedTargetEntry.model_fields["codecs"]
    if defaults <= registry.codecs.keys():
        codecs = FieldInfo.merge_field_infos(codecs, default=DEFAULT_CODECS, validate_default=True)
    many = tuple[codec, ...]  # type: ignore[valid-type]  # made at run time
    encoded = create_model("EncodedTargetEntry", __base__=EncodedTargetEntry, codecs=(many, codecs))
    hypervisors = union("hypervisors", lambda _: Entry)
    transports = union("transports", lambda _: TransportEntry)
    targets = union("targets", lambda cls: encoded if cls.encodes else TargetEntry)
    executor = union("executors", lambda _: Entry)
    return create_model(
        "Config",
        __base__=Config,
        hypervisors=_entries(Config, "hypervisors", hypervisors),
        transports=_entries(Config, "transports", transports),
        targets=_entries(Config, "targets", targets),
        executor=(executor | SkipJsonSchema[None], Config.model_fields["executor"]),  # type: ignore[misc]  # at run time
    )


def schema(registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of the configuration, third-party options included; see `open_model`."""
    whole = draft7(open_model(registry)[1])
    for section in whole["properties"].values():
        if "patternProperties" in section:
            section.setdefault("additionalProperties", False)  # an alias that is none is refused, not overlooked
    return {**whole, "title": "vbackup configuration"}


def _entries(base: type[Config], name: str, entry: Any) -> Any:
    key = base.model_fields[name].annotation.__args__[0]  # type: ignore[union-attr]  # Mapping[Alias, ...]
    return (Mapping[key, entry], base.model_fields[name])  # type: ignore[valid-type]


def _union(models: Sequence[type[Entry]]) -> Any:
    """Return the type of an entry that is one of them."""
    if not models:
        return _NothingInstalled
    if len(models) == 1:
        return models[0]
    return Annotated[Union[tuple(models)], Field(discriminator="type")]  # noqa: UP007 - a tuple made at run time


def _entry(role: str, base: type[Entry], name: str, cls: type[Any]) -> type[Entry]:
    try:
        if not cls.options.__pydantic_complete__:
            cls.options.model_rebuild()  # it names what stands below it in its module
        entry = create_model(
            f"{role}_{name}",
            __base__=(base, cls.options),
            __doc__=inspect.cleandoc(cls.options.__doc__ or ""),
            type=_type(role, name),
        )
        if not entry.__pydantic_complete__:
            entry.model_rebuild()  # says what is not there
    except BaseException as error:  # a stranger's model may do anything when it is inherited from
        if is_ours(error):
            raise
        raise PluginError(
            f"the options of {role} {name!r} cannot be made part of the configuration: {told(error)}",
            hint="`vbackup plugins` says whose they are: run without it, VBACKUP_DISABLED_PLUGINS=NAME",
        ) from error
    return entry


def _describable(registry: Registry, role: str, base: type[Entry], name: str, cls: type[Any]) -> type[Entry]:
    """Like `_entry`; where its options cannot be described, an entry with any."""
    try:
        entry = _entry(role, base, name, cls)
        described(entry)
    except PluginError as error:
        blame = registry.blame(role, name, "its options")
        _log.warning("%s; the schema leaves them open (%s)", blame.error(error.message).message, blame.hint)
        return create_model(f"{role}_{name}", __base__=base, __cls_kwargs__={"extra": "allow"}, type=_type(role, name))
    return entry


def _type(role: str, name: str) -> Any:
    return Literal[name], Field(description=f"which of the installed {role} it is; `vbackup plugins` lists them")
