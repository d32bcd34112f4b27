"""Disk maps against a plain list of ids."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from vbackup.repository import diskmap
from vbackup.repository.diskmap import DiskMap, MapBuilder, Shape
from vbackup.repository.layout import FANOUT, ZERO_ID

CHUNK = 4


class Nodes:
    """Content-addressed nodes in memory."""

    def __init__(self):
        self.nodes = {}
        self.stored = 0

    def store(self, node):
        node_id = (hash(node) & (2**64 - 1)).to_bytes(8, "big") * 4
        self.nodes[node_id] = node
        self.stored += 1
        return node_id

    def build(self, size, runs, base=None):
        """``runs``: (kind, chunks, seed)."""
        builder = MapBuilder(Shape(size, CHUNK), base, self.store)
        for kind, chunks, seed in runs:
            if kind == "data":
                builder.data(b"".join(chunk(seed, number) for number in range(chunks)))
            elif chunks:
                getattr(builder, kind)(chunks)
        return DiskMap(Shape(size, CHUNK), builder.finish(), self.nodes.__getitem__), builder


def chunk(seed, number):
    return (seed * 1_000_003 + number + 1).to_bytes(32, "big")


sizes = st.integers(0, 4 * 3 * FANOUT * 3)


@st.composite
def histories(draw):
    """Sizes and runs of a few generations; each covers its disk, unchanged only where the one before had it."""
    steps, before = [], None
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.one_of(sizes, st.just(before if before is not None else 0)))
        chunks, position, runs = Shape(size, CHUNK).chunks, 0, []
        common = chunks if before == size else min(before or 0, size) // CHUNK
        while position < chunks:
            run = draw(st.integers(1, chunks - position))
            kind = draw(st.sampled_from(["data", "zero", "unchanged"]))
            if kind == "unchanged":
                run = min(run, common - position)
                if run <= 0 or before is None:
                    kind, run = "data", 1
            runs.append((kind, run, draw(st.integers(0, 3))))
            position += run
        steps.append((size, runs))
        before = size
    return steps


@given(histories())
@settings(max_examples=150, deadline=None)
def test_a_map_holds_what_was_put_into_it(history):
    """Every generation, built on the one before, lists the ids, extents and changes that a plain list has."""
    nodes, base, ids = Nodes(), None, []
    old_size = 0
    for size, runs in history:
        tree, builder = nodes.build(size, runs, base)
        new = []
        for kind, count, seed in runs:
            at = len(new)
            new += {
                "data": [chunk(seed, number) for number in range(count)],
                "zero": [ZERO_ID] * count,
                "unchanged": ids[at : at + count],
            }[kind]
        assert new == list(tree.ids(0, len(new)))
        data = sum(extent.length for extent in tree.extents() if extent.kind == "data")
        assert data == sum(Shape(size, CHUNK).chunk_length(i) for i, c in enumerate(new) if c != ZERO_ID)
        comparable = len(new) if size == old_size else min(size, old_size) // CHUNK
        changed = sum(
            Shape(size, CHUNK).chunk_length(i)
            for i, c in enumerate(new)
            if (c != ids[i] if base is not None and i < comparable else c != ZERO_ID)
        )
        assert changed == builder.changed
        assert all(offset % CHUNK == 0 and offset < size for offset in builder.samples)
        assert len(builder.samples) <= diskmap.SAMPLES
        base, ids, old_size = tree, new, size


@given(histories())
@settings(max_examples=50, deadline=None)
def test_equal_content_makes_equal_trees_however_it_came_about(history):
    nodes, base = Nodes(), None
    for size, runs in history:
        base, _ = nodes.build(size, runs, base)
    ids = list(base.ids(0, base.shape.chunks))
    builder = MapBuilder(base.shape, None, nodes.store)
    builder.data(b"".join(ids))
    assert base.root == builder.finish()


def test_an_unchanged_huge_disk_touches_no_node():
    """A tebibyte that did not change costs neither reads nor stores."""
    nodes = Nodes()
    size = (1 << 40) // (128 << 10) * CHUNK
    base, _ = nodes.build(size, [("data", 1000, 1), ("zero", size // CHUNK - 1000, 0)])
    nodes.stored = 0
    again, builder = nodes.build(size, [("unchanged", size // CHUNK, 0)], base)
    assert (base.root, 0, 0) == (again.root, nodes.stored, builder.changed)


def test_a_small_change_of_a_huge_disk_rewrites_one_path():
    nodes = Nodes()
    chunks = (1 << 40) // (128 << 10)
    base, _ = nodes.build(chunks * CHUNK, [("data", 1000, 1), ("zero", chunks - 1000, 0)])
    nodes.stored = 0
    runs = [("unchanged", chunks // 2, 0), ("data", 1, 9), ("unchanged", chunks // 2 - 1, 0)]
    _, builder = nodes.build(chunks * CHUNK, runs, base)
    assert (base.shape.depth, CHUNK) == (nodes.stored, builder.changed)
