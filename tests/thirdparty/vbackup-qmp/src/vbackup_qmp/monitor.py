"""Conversations with QEMU's monitor, and with the agent in the guest, which speaks nearly the same.

A monitor has one visitor at a time. So nobody stays: each conversation connects, says what it has to and leaves. It
runs in an event loop of its own, in the thread that asked for it. What was made in QEMU stays there, under a name.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from vbackup.api import AccessDenied, Busy, Unavailable, Unsupported

T = TypeVar("T")

GREETING_SECONDS = 10.0
"""Whom QEMU does not greet within this time is not the only visitor."""
ANSWER_SECONDS = 120.0
_CREDENTIALS = struct.Struct("3i")


class Off(Unavailable):
    """Nobody listens: the machine is switched off."""


class Refused(Unavailable):
    """QEMU understood, and refused."""


class Peer(NamedTuple):
    """The process behind a socket."""

    pid: int
    uid: int
    gid: int


class _Client(QMPClient):
    """One that does not write to the log what its caller is told by an error."""

    logger = logging.getLogger(f"{__name__}.client")
    logger.setLevel(logging.CRITICAL)


class Monitor:
    """One conversation with the QEMU of a machine."""

    def __init__(self, client: QMPClient, label: str, peer: Peer) -> None:
        self._client = client
        self._label = label
        self.peer = peer

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's version."""
        greeting = self._client.greeting
        if greeting is None:
            raise AssertionError("a conversation begins with QEMU's greeting")
        said: Any = greeting.QMP.version["qemu"]
        return said["major"], said["minor"], said["micro"]

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Have a command carried out; ``node_name`` stands for ``node-name``.

        Raises: `Refused`, `Unavailable`; `Unsupported` when this QEMU does not know the command.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._client.execute(command, named)
        except ExecuteError as error:
            if error.error_class == "CommandNotFound":
                raise Unsupported(f"{self._label}: this QEMU does not know {command}") from error
            raise Refused(f"{self._label}: QEMU refused {command}: {error}") from error
        except TimeoutError as error:
            raise Unavailable(f"{self._label}: QEMU did not carry out {command} in time") from error
        except (QMPError, EOFError, OSError) as error:
            raise Unavailable(f"{self._label}: QEMU went away during {command}: {error}") from error

    async def ask_until(self, event: EventListener, what: str, command: str, **arguments: Any) -> None:
        """Have a command carried out, and wait for an event, which says that ``what``.

        Raises: as `ask`.
        """
        with self._client.listen(event):
            await self.ask(command, **arguments)
            heard, ended = asyncio.ensure_future(event.get()), asyncio.ensure_future(self._ended())
            try:
                await asyncio.wait({heard, ended}, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not heard.done():
                    why = "went away before it said" if ended.done() else "did not say in time"
                    raise Unavailable(f"{self._label}: QEMU {why} that {what}")
            finally:
                heard.cancel()
                ended.cancel()

    async def _ended(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()


def is_listening(path: Path) -> bool:
    """Whether a process listens at a socket, busy or not. Raises: `AccessDenied`, `Unavailable`."""
    try:
        _connected(path, "").close()
    except Off:
        return False
    except Busy:
        return True
    return True


def converse(path: Path, label: str, talk: Callable[[Monitor], Awaitable[T]]) -> T:
    """Return what ``talk`` returns of its conversation with the QEMU at ``path``.

    Raises: `Off`, `Busy`, `AccessDenied`, `Unavailable`, and what ``talk`` raises.
    """
    return asyncio.run(_converse(path, label, talk))


async def _converse(path: Path, label: str, talk: Callable[[Monitor], Awaitable[T]]) -> T:
    async with _client(path, label, is_agent=False) as (client, peer):
        return await talk(Monitor(client, label, peer))


@asynccontextmanager
async def agent_of(path: Path, label: str) -> AsyncIterator[QMPClient]:
    """Connect to the port of a guest's agent, which does not greet. Raises: as `converse`."""
    async with _client(path, label, is_agent=True) as (client, _):
        yield client


@asynccontextmanager
async def _client(path: Path, label: str, *, is_agent: bool) -> AsyncIterator[tuple[QMPClient, Peer]]:
    link = _connected(path, label)
    try:
        peer = Peer(*_CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))
        link.setblocking(False)
        client = _Client(label)
        client.await_greeting = client.negotiate = not is_agent
        async with asyncio.timeout(GREETING_SECONDS):
            await client.connect(link)
    except TimeoutError:
        link.close()
        raise _busy(label, path) from None
    except (QMPError, EOFError, OSError) as error:
        link.close()
        raise Unavailable(f"{label}: {path} is no monitor of QEMU, or it ended: {error}") from error
    try:
        yield client, peer
    finally:
        with suppress(QMPError, EOFError, OSError):  # why it ended was told by what was asked last
            await client.disconnect()


def _connected(path: Path, label: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    try:
        link.settimeout(GREETING_SECONDS)
        link.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        link.close()
        raise Off(f"{label}: nobody listens at {path}: the machine is off", transient=False) from None
    except PermissionError as error:
        link.close()
        raise AccessDenied(f"{label}: {path}: {error.strerror}") from error
    except (BlockingIOError, TimeoutError):
        link.close()
        raise _busy(label, path) from None
    except OSError as error:
        link.close()
        raise Unavailable(f"{label}: cannot connect to {path}: {error}", transient=False) from error
    return link


def _busy(label: str, path: Path) -> Busy:
    hint = "give vbackup a monitor of its own: QEMU takes several -qmp"
    return Busy(f"{label}: another program uses {path}, or QEMU hangs", hint=hint)
