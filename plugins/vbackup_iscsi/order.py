"""What a user tells the keeper and what it answers: one line of JSON each way, over a Unix socket.

The socket is also how each knows that the other lives: the kernel closes it, however a process ends.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, field

from vbackup.api import AccessDenied, Busy, Corrupt, NoSpace, Unavailable, Unsupported, VBackupError
from vbackup_iscsi.options import Timing

_LONGEST = 1 << 20
_ERRORS = {error.__name__: error for error in (AccessDenied, Busy, Corrupt, NoSpace, Unavailable, Unsupported)}


@dataclass(frozen=True, slots=True)
class Order:
    """Which LUN to attach, and how."""

    portal: str
    target: str
    lun: int
    initiator: str
    client: str
    place: str
    user: str = ""
    password: str = field(default="", repr=False)
    format: bool = False
    """Make the file system if the LUN is blank."""
    force: bool = False
    """Make it also if there is something else on the LUN."""
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True, slots=True)
class Attached:
    """What a user has then."""

    store: str
    """The id of the store on the LUN."""
    initiator: int
    """The process that is connected to the target; 0 where it is the kernel."""


def send_order(connection: socket.socket, order: Order) -> None:
    """Send it."""
    _send(connection, asdict(order))


def receive_order(connection: socket.socket) -> Order | None:
    """Return it, or None if the user is gone."""
    line = _line(connection)
    if line is None:
        return None
    fields = json.loads(line)
    return Order(**fields | {"timing": Timing(**fields["timing"])})


def send_answer(connection: socket.socket, answer: VBackupError | Attached) -> None:
    """Tell a user what is attached, or why nothing is."""
    if isinstance(answer, Attached):
        _send(connection, asdict(answer))
        return
    error = answer
    kind = type(error).__name__ if type(error).__name__ in _ERRORS else Unavailable.__name__
    fields = {"error": kind, "message": error.message, "hint": error.hint, "transient": error.transient}
    _send(connection, fields)


def receive_answer(connection: socket.socket) -> Attached | None:
    """Return what is attached, None if the keeper ended without an answer; raises its error."""
    line = _line(connection)
    if line is None:
        return None
    answer = json.loads(line)
    if "error" in answer:
        kind = _ERRORS[answer["error"]]
        raise kind(answer["message"], hint=answer["hint"], transient=answer["transient"])
    return Attached(**answer)


def _send(connection: socket.socket, fields: dict[str, object]) -> None:
    connection.sendall(json.dumps(fields).encode() + b"\n")


def _line(connection: socket.socket) -> bytes | None:
    line = b""
    while not line.endswith(b"\n"):
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return None
        if not piece or len(line) > _LONGEST:
            return None
        line += piece
    return line
