"""Files take their places all together: what they replace is kept beside them until the last one is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vbackup.api import AlreadyExists
from vbackup_libvirt.journal import Made
from vbackup_qemu import image
from vbackup_qemu.host import Host


@dataclass(frozen=True, slots=True)
class Move:
    """A file that is going to take its place; without ``temporary`` the one at ``path`` only makes way."""

    temporary: str | None
    path: str
    replaces: bool


def beside(path: PurePosixPath, token: str) -> PurePosixPath:
    """Return where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.vbackup-{token}")


def plan(host: Host, moves: Iterable[Move], token: str) -> tuple[Made, ...]:
    """Return what must be journaled before `put`."""
    return tuple(
        Made(
            path=move.path,
            inode=_inode(host, move.temporary) if move.temporary is not None else "",
            old=f"{beside(PurePosixPath(move.path), token)}.old",
        )
        for move in moves
    )


def put(host: Host, moves: Sequence[Move], made: Sequence[Made]) -> None:
    """Have all files take their places. Raises: `AlreadyExists` where somebody else made a file meanwhile."""
    for move, one in zip(moves, made, strict=True):
        if move.replaces:
            _make_way(host, move, one)
        if move.temporary is not None:
            host.run(["mv", "-nT", "--", move.temporary, move.path])
            if host.exists(move.temporary):
                raise AlreadyExists(f"somebody made {move.path} meanwhile", hint="see what it is, and try again")
        host.run(["sync", "--", str(PurePosixPath(move.path).parent)])


def _make_way(host: Host, move: Move, one: Made) -> None:
    if move.temporary is not None:  # whoever could use the old one can use the new one
        host.run(["chown", f"--reference={move.path}", "--", move.temporary])
        host.run(["chmod", f"--reference={move.path}", "--", move.temporary])
    host.run(["mv", "-T", "--", move.path, one.old])


def put_back(host: Host, made: Iterable[Made]) -> list[str]:
    """Undo `put`, however far it came. Returns notes on places that others have taken since: those are left."""
    notes = []
    for one in made:
        present = _inode(host, one.path) if host.exists(one.path) else ""
        kept = host.exists(one.old)
        if kept and present not in {"", one.inode}:
            notes.append(f"{one.path} was made by somebody else; what it was before is {one.old}")
        elif kept:
            host.run(["mv", "-T", "--", one.old, one.path])
        elif present and present == one.inode:
            host.remove_tree(one.path)
    return notes


def _inode(host: Host, path: str) -> str:
    return image.trace(host, [path])[0].inode
