"""``vbackup plugins``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.registry import PluginInfo, Registry
    from vbackup.registry.described import Option

_EVENTS = "vbackup_job_"


@click.command(
    "plugins",
    epilog="A plugin that is not wanted, or does harm, is left out by its name: "
    "VBACKUP_DISABLED_PLUGINS=NAME,NAME. VBACKUP_TRACE_HOOKS=1 shows each call of a plugin's hooks.",
)
@click.argument("name", required=False)
@json_option
@click.pass_obj
def command(state: State, name: str | None) -> None:
    """List the plugins: what they bring, and what is wrong with those that are left out.

    With a NAME, all there is to know about that one: where it is from, its hooks, and the options of what it brings.
    """
    registry = state.registry()
    found = [plugin for plugin in registry.plugins if name in (None, plugin.name)]
    if not found:
        raise _unknown(str(name), registry)
    if state.json:
        output.document([_as_json(plugin, registry) for plugin in found])
    elif name is None:
        output.table(("NAME", "FROM", "STATUS", "BRINGS"), [_row(plugin) for plugin in found])
    else:
        for plugin in found:
            _show(plugin, registry)


def _unknown(name: str, registry: Registry) -> Exception:
    import difflib

    from vbackup.api import NotFound

    near = difflib.get_close_matches(name, [plugin.name for plugin in registry.plugins], n=1)
    return NotFound(
        f"there is no plugin {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        hint="`vbackup plugins` lists those that are installed beside vbackup.",
    )


def _row(plugin: PluginInfo) -> tuple[str, ...]:
    return (plugin.name, _origin(plugin), plugin.status, plugin.error or _brings(plugin))


def _origin(plugin: PluginInfo) -> str:
    return "built-in" if plugin.builtin else f"{plugin.origin} {plugin.version}"


def _brings(plugin: PluginInfo) -> str:
    events = [hook.removeprefix(_EVENTS) for hook in plugin.hooks if hook.startswith(_EVENTS)]
    brought = {**plugin.roles, **({"events": events} if events else {})}
    return "; ".join(f"{role}: {', '.join(names)}" for role, names in brought.items())


def _options(plugin: PluginInfo, registry: Registry) -> list[tuple[str, str, Sequence[Option]]]:
    """Return the role, the name and the options of each class that a plugin brings. Warns of what has no words."""
    from vbackup.api import PluginError
    from vbackup.registry.described import options

    found: list[tuple[str, str, Sequence[Option]]] = []
    for role, name in ((role, name) for role, names in plugin.roles.items() if role != "commands" for name in names):
        try:
            found.append((role, name, options(getattr(registry, role)[name].options)))
        except PluginError as error:
            output.warning(registry.blame(role, name, "its options").error(error.message).message)
    return found


def _as_json(plugin: PluginInfo, registry: Registry) -> dict[str, Any]:
    from dataclasses import asdict

    options: dict[str, dict[str, Any]] = {}
    for role, name, known in _options(plugin, registry):
        options.setdefault(role, {})[name] = [asdict(option) for option in known]
    keys = ("name", "origin", "version", "module", "builtin", "status", "error", "api_version", "waits")
    return {
        **{key: getattr(plugin, key) for key in keys},
        "hooks": list(plugin.hooks),
        "roles": {role: list(names) for role, names in plugin.roles.items()},
        "options": options,
    }


def _show(plugin: PluginInfo, registry: Registry) -> None:
    from vbackup.api import API_VERSION

    stated = f"not stated, taken for {API_VERSION}" if plugin.api_version is None else str(plugin.api_version)
    when = "when something of it is wanted" if plugin.waits else "when plugins are looked for"
    lines = [
        ("plugin", plugin.name),
        ("from", f"{plugin.origin} {plugin.version} ({plugin.module})"),
        ("status", f"{plugin.status}: {plugin.error}" if plugin.error else plugin.status),
    ]
    if plugin.status == "ok":
        lines += [
            ("API version", stated),
            ("loaded", when),
            ("hooks", ", ".join(plugin.hooks)),
            ("brings", _brings(plugin)),
        ]
    for label, text in lines:
        output.write(f"{label:<12} {text}")
    for role, name, options in _options(plugin, registry):
        output.write("")
        output.write(f"options of {role}: {name}")
        rows = [(option.key, option.type, _default(option), option.meaning) for option in options]
        output.table(("KEY", "TYPE", "DEFAULT", "MEANING"), rows or [("-", "", "", "there are none")])


def _default(option: Option) -> str:
    if option.required:
        return "(required)"
    if option.default is None:
        return "-"
    if isinstance(option.default, str) and option.default.strip():
        return option.default
    import json

    return json.dumps(option.default, ensure_ascii=False)
