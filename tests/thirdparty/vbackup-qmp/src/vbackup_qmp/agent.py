"""The agent in the guest (qemu-guest-agent), at the UNIX socket that its port is connected to.

A port takes what is written to it also when there is no agent behind it: only time tells.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError

from vbackup.api import GuestError, VBackupError
from vbackup_qmp.monitor import agent_of

PING_SECONDS = 5.0
FREEZE_SECONDS = 60.0


def ping(path: Path, label: str) -> None:
    """Raise `GuestError` unless the agent answers."""
    _ask(path, label, "guest-ping", PING_SECONDS)


def freeze(path: Path, label: str) -> int:
    """Freeze the guest's file systems; return how many. Raises: `GuestError`; it may be frozen all the same."""
    return int(_ask(path, label, "guest-fsfreeze-freeze", FREEZE_SECONDS))


def thaw(path: Path, label: str) -> None:
    """Thaw them; those that are not frozen are no error. Raises: `GuestError`."""
    _ask(path, label, "guest-fsfreeze-thaw", FREEZE_SECONDS)


def _ask(path: Path, label: str, command: str, seconds: float) -> Any:
    try:
        return asyncio.run(_talk(path, label, command, seconds))
    except (TimeoutError, QMPError, EOFError, OSError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else error
        raise GuestError(f"the agent in {label} did not carry out {command}: {why}") from error
    except VBackupError as error:
        raise GuestError(f"the agent in {label} cannot be reached: {error.message}") from error


async def _talk(path: Path, label: str, command: str, seconds: float) -> Any:
    async with agent_of(path, label) as client, asyncio.timeout(seconds):
        # What an earlier visitor asked for may be answered only now; what comes after this answer is ours.
        await client.execute("guest-sync", {"id": secrets.randbits(31)})
        return await client.execute(command)
