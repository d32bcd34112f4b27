"""The names of vbackup's own commands: no plugin may take them. Apart, as both sides must know them and cheaply."""

from __future__ import annotations

COMMANDS = (
    "init",
    "run",
    "list",
    "show",
    "restore",
    "verify",
    "check",
    "copy",
    "delete",
    "protect",
    "unprotect",
    "prune",
    "key",
    "transport",
    "doctor",
    "plugins",
    "plugin",
    "schema",
)
"""In the order of a user's day."""
