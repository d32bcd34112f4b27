"""Which API version a plugin was made for, and whether it works here."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Mapping
from types import FrameType

from vbackup import __version__, api
from vbackup.api import API_VERSION, PluginError
from vbackup.guards.blame import told_value

LAST_WITH: Mapping[int, str] = {}
"""The last version of vbackup that had an API version of the past."""

_API = api.__name__
_STATED = "VBACKUP_API_VERSION"


def check_stated(plugin: object) -> None:
    """Raise `PluginError` unless ``plugin`` was made for an API that works here; one that says nothing was."""
    _check(getattr(plugin, _STATED, API_VERSION))


def _check(version: object) -> None:
    """Raise `PluginError` unless API ``version`` works here; say which vbackup it needs."""
    if type(version) is not int or version < 1:
        raise PluginError(f"its {_STATED} must be a whole number from 1 on, not {told_value(version)}")
    if version == API_VERSION:
        return
    made = f"it was made for API version {version}; this is {API_VERSION}, of vbackup {__version__}"
    if version > API_VERSION:
        raise PluginError(f"{made}: update vbackup, or install an older version of the plugin")
    last = LAST_WITH.get(version)
    older = f", or install vbackup {last}, the last with that API" if last else ""
    raise PluginError(f"{made}: update the plugin{older}")


def lacking(error: BaseException, module: str) -> str:
    """Return what to add to the message of an import that failed for want of something in `vbackup.api`, else nothing.

    ``module`` is that of the plugin. It states its version below its imports, so it is looked for in its text.
    """
    if not _is_of_api(error):
        return ""
    try:
        _check(_stated(error, module))
    except PluginError as other:
        return f"; {other.message}"
    return f"; this is API version {API_VERSION}, of vbackup {__version__}: the plugin may be made for another"


def _is_of_api(error: BaseException) -> bool:
    # Python's own classes only: in a stranger's any attribute may be code.
    if type(error) is AttributeError:
        return error.obj is api
    if not isinstance(error, ImportError) or type(error) not in (ImportError, ModuleNotFoundError):
        return False
    return f"{error.name}.".startswith(f"{_API}.")


def _stated(error: BaseException, module: str) -> object:
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_globals.get("__name__") == module:
            return _in_text(at.tb_frame)
        at = at.tb_next
    return API_VERSION


def _in_text(frame: FrameType) -> object:
    try:
        body = ast.parse("".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))).body
    except (SyntaxError, ValueError):
        return API_VERSION
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)) if name == _STATED:
                return value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)) if name == _STATED:
                return value
    return API_VERSION
