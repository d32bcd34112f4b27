"""Whose code raised an exception that nobody expected."""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType, TracebackType

from vbackup.registry.entries import PluginInfo


def raised_by(error: BaseException, plugins: Mapping[str, PluginInfo]) -> PluginInfo | None:
    """Return the plugin, by its package, whose code was at work when ``error`` was raised, or the libraries it called.

    None when it was vbackup's own code.
    """
    found: PluginInfo | None = None
    at: TracebackType | None = error.__traceback__
    while at is not None:
        package = _package(at.tb_frame)
        if package in plugins:
            found = plugins[package]
        elif package == "vbackup":
            found = None
        at = at.tb_next
    return found


def running(frame: FrameType | None, plugins: Mapping[str, PluginInfo]) -> PluginInfo | None:
    """Return the plugin, by its package, that a thread runs code of; None when it runs none."""
    while frame is not None:
        if (package := _package(frame)) in plugins:
            return plugins[package]
        frame = frame.f_back
    return None


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
