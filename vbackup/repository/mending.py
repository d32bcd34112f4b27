"""What no pack holds any more, brought back from other copies of the same restore points.

A chunk is read where it was, and stored if it hashes to its id. A node of a disk map is built again from the disk below
it: whatever the other copy's chunks, keys and format are, equal bytes make an equal node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from vbackup.api import Buffer, Elsewhere, Point, PointDisk, Range
from vbackup.repository.diskmap import Shape
from vbackup.repository.layout import FANOUT, ID_SIZE, ZERO_ID
from vbackup.repository.lost import Lost, Piece
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.session import Session

_STEP = 4 << 20  # bytes of a request


@dataclass
class Mending:
    """Brings back what is lost, into a session."""

    lost: Lost
    session: Session
    elsewhere: Elsewhere
    chunk_size: int
    mended: int = 0
    """How many chunks and nodes were brought back."""
    _done: set[bytes] = field(default_factory=set)

    def mend(self, points: Iterable[Point]) -> None:
        """Bring back what can be had of what points need. Raises what the store raises."""
        for point in points:
            for disk in point.disks:
                for run in _runs(self.lost.pieces(disk), _STEP // self.chunk_size):
                    self._mend(point, disk, run)
            for name, content in point.files.items():
                lost = [piece for _, piece in self.lost.file_pieces(content["chunks"])]
                if lost:
                    self._file(point, name, lost)

    def _mend(self, point: Point, disk: PointDisk, run: list[Piece]) -> None:
        """Mend neighbouring chunks, or one node."""
        if all(piece.id in self._done for piece in run):
            return
        shape, first = Shape(disk.size, self.chunk_size), run[0]
        if first.level:
            ids = self._rebuild(point, disk.key, shape, first.level, first.number)
        else:
            ids = self._store(point, disk.key, shape, first.number, first.number + len(run))
        if ids is None and len(run) > 1:  # the other copy may lack but a part of it
            for piece in run:
                self._mend(point, disk, [piece])
            return
        got = [(ids or b"")[at : at + ID_SIZE] for at in range(0, len(run) * ID_SIZE, ID_SIZE)]
        self._count(piece.id for piece, each in zip(run, got, strict=True) if piece.id == each)

    def _count(self, ids: Iterable[bytes]) -> None:
        for each in ids:
            self.mended += each not in self._done
            self._done.add(each)

    def _store(self, point: Point, disk: str, shape: Shape, first: int, end: int) -> bytes | None:
        """Store chunks as the other copy has them; return their ids, joined."""
        offset = first * shape.chunk
        data = self.elsewhere.read(point.id, disk, Range(offset, min(end * shape.chunk, shape.size) - offset))
        if data is None:
            return None
        ids: list[bytes] = []
        solid: dict[bytes, Buffer] = {}
        for start in range(0, len(data), shape.chunk):
            chunk = bytes(memoryview(data)[start : start + shape.chunk])
            chunk_id = self.session.chunk_id(ChunkKind.DATA, chunk) if chunk.strip(b"\0") else ZERO_ID
            ids.append(chunk_id)
            if chunk_id != ZERO_ID:
                solid[chunk_id] = chunk
        self.session.put(ChunkKind.DATA, list(solid), list(solid.values()))
        return b"".join(ids)

    def _rebuild(self, point: Point, disk: str, shape: Shape, level: int, index: int) -> bytes | None:
        """Build a node, and all below it, from the other copy; return its id, or None where there is none."""
        first, end = shape.span(level, index)
        parts: list[bytes] = []
        if level == 1:
            step = max(1, _STEP // shape.chunk)
            bounds = [(at, min(at + step, end)) for at in range(first, end, step)]
            found: Iterator[bytes | None] = (self._store(point, disk, shape, *each) for each in bounds)
        else:
            children = range(index * FANOUT, min((index + 1) * FANOUT, shape.nodes(level - 1)))
            found = (self._rebuild(point, disk, shape, level - 1, child) for child in children)
        for part in found:
            if part is None:
                return None
            parts.append(part)
        node = b"".join(parts)
        return self.session.put_node(node)[0] if node.strip(b"\0") else ZERO_ID

    def _file(self, point: Point, name: str, lost: list[Piece]) -> None:
        if all(piece.id in self._done for piece in lost):
            return
        data = self.elsewhere.file(point.id, name)
        if data is not None:
            stored = self.session.file(data)["chunks"]
            self._count(piece.id for piece in lost if piece.id.hex() in stored)


def _runs(pieces: Iterable[Piece], most: int) -> Iterator[list[Piece]]:
    """Group chunks that follow each other, as far as one request goes; nodes stay alone."""
    run: list[Piece] = []
    for piece in pieces:
        last = run[-1] if run else None
        if last and (piece.level or last.level or piece.number != last.number + 1 or len(run) >= most):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run
