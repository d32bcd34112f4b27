"""The algebra of extents, against models that know each byte."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbackup.api import Extent, Kind, PluginError, Range, align, cover, merge, overlay, split

KINDS = list(Kind)
LOWER_KINDS = [Kind.DATA, Kind.ZERO]


@st.composite
def maps(draw, size, kinds=KINDS):
    """Extents that cover ``[0, size)``, with neighbours of one kind among them."""
    cuts = sorted(draw(st.sets(st.integers(1, size - 1), max_size=12))) if size > 1 else []
    edges = [0, *cuts, size] if size else []
    return [Extent(start, end - start, draw(st.sampled_from(kinds))) for start, end in itertools.pairwise(edges)]


sizes = st.integers(0, 200)
sized_maps = sizes.flatmap(lambda size: st.tuples(st.just(size), maps(size)))
two_maps = sizes.flatmap(lambda size: st.tuples(st.just(size), maps(size), maps(size, LOWER_KINDS)))


def by_byte(extents):
    """The kind of each byte."""
    return [extent.kind for extent in extents for _ in range(extent.length)]


def assert_covers(extents, size):
    assert list(cover(extents, size)) == extents


class TestCover:
    @given(sized_maps)
    def test_passes_on_what_covers(self, sized):
        size, extents = sized
        assert list(cover(extents, size)) == extents

    @given(sized_maps, st.data())
    def test_refuses_anything_else(self, sized, data):
        """One extent left out, doubled, moved, longer, shorter or empty."""
        size, extents = sized
        if not extents:
            return
        index = data.draw(st.integers(0, len(extents) - 1))
        extent = extents[index]
        wrong = data.draw(
            st.sampled_from(
                [
                    [],
                    [extent, extent],
                    [extent._replace(offset=extent.offset + 1)],
                    [extent._replace(length=extent.length + 1)],
                    [extent._replace(length=extent.length - 1)],
                    [extent._replace(length=-extent.length)],
                    [extent, Extent(extent.end, 0, Kind.DATA)],
                ]
            )
        )
        with pytest.raises(PluginError):
            list(cover([*extents[:index], *wrong, *extents[index + 1 :]], size))

    @given(sized_maps, sizes)
    def test_refuses_another_size(self, sized, other):
        size, extents = sized
        if other != size:
            with pytest.raises(PluginError):
                list(cover(extents, other))

    def test_says_where(self):
        with pytest.raises(PluginError, match=r"20\+5 does not continue at 10 of a disk of 30"):
            list(cover([Extent(0, 10, Kind.DATA), Extent(20, 5, Kind.DATA)], 30))

    def test_is_lazy(self):
        """What is right is yielded before the rest is asked for: nothing grows with the disk."""
        endless = (Extent(number, 1, Kind.DATA) for number in itertools.count())
        assert list(itertools.islice(cover(endless, 1 << 60), 3)) == [Extent(n, 1, Kind.DATA) for n in range(3)]


class TestMerge:
    @given(sized_maps)
    def test_changes_no_byte_and_leaves_no_equal_neighbours(self, sized):
        size, extents = sized
        merged = list(merge(extents))
        assert_covers(merged, size)
        assert by_byte(merged) == by_byte(extents)
        assert all(left.kind is not right.kind for left, right in itertools.pairwise(merged))

    def test_does_not_join_across_a_gap(self):
        extents = [Extent(0, 1, Kind.DATA), Extent(2, 1, Kind.DATA)]
        assert list(merge(extents)) == extents

    def test_is_lazy(self):
        endless = (Extent(number, 1, KINDS[number % 2]) for number in itertools.count())
        assert len(list(itertools.islice(merge(endless), 5))) == 5


class TestOverlay:
    @given(two_maps)
    def test_unchanged_wins_and_the_rest_is_the_lower(self, case):
        size, upper, lower = case
        result = list(overlay(upper, lower, size))
        assert_covers(result, size)
        expected = [up if up is Kind.UNCHANGED else low for up, low in zip(by_byte(upper), by_byte(lower), strict=True)]
        assert by_byte(result) == expected

    @given(two_maps)
    def test_refuses_maps_of_another_size(self, case):
        size, upper, lower = case
        longer = Extent(size, 1, Kind.DATA)
        for wrong in (([*upper, longer], lower), (upper, lower[:-1]), (upper[:-1], lower)):
            if wrong != (upper, lower):
                with pytest.raises(PluginError):
                    list(overlay(*wrong, size))

    @given(two_maps)
    def test_refuses_a_lower_map_that_is_too_long(self, case):
        size, upper, lower = case
        with pytest.raises(PluginError):
            list(overlay(upper, [*lower, Extent(size, 1, Kind.DATA)], size))

    def test_a_dirty_range_that_is_now_discarded_is_zero_and_not_unchanged(self):
        upper = [Extent(0, 10, Kind.UNCHANGED), Extent(10, 10, Kind.DATA), Extent(20, 10, Kind.UNCHANGED)]
        lower = [Extent(0, 15, Kind.DATA), Extent(15, 15, Kind.ZERO)]
        assert list(overlay(upper, lower, 30)) == [
            Extent(0, 10, Kind.UNCHANGED),
            Extent(10, 5, Kind.DATA),
            Extent(15, 5, Kind.ZERO),
            Extent(20, 10, Kind.UNCHANGED),
        ]


class TestAlign:
    @given(sized_maps, st.integers(1, 64))
    def test_blocks_of_one_kind_keep_it_and_mixed_ones_are_data(self, sized, block):
        size, extents = sized
        aligned = list(align(extents, block, size))
        assert_covers(aligned, size)
        kinds, got = by_byte(extents), by_byte(aligned)
        for start in range(0, size, block):
            there = set(kinds[start : start + block])
            expected = there.pop() if len(there) == 1 else Kind.DATA
            assert set(got[start : start + block]) == {expected}

    @given(sized_maps, st.integers(1, 64))
    def test_boundaries_are_multiples_and_neighbours_differ(self, sized, block):
        size, extents = sized
        aligned = list(align(extents, block, size))
        assert all(extent.offset % block == 0 for extent in aligned)
        assert all(left.kind is not right.kind for left, right in itertools.pairwise(aligned))

    @given(sized_maps, st.integers(1, 64))
    def test_twice_is_once(self, sized, block):
        size, extents = sized
        once = list(align(extents, block, size))
        assert list(align(once, block, size)) == once

    @given(sized_maps, st.integers(1, 64))
    def test_refuses_what_does_not_cover(self, sized, block):
        size, extents = sized
        if extents:
            with pytest.raises(PluginError):
                list(align(extents[:-1], block, size))

    def test_is_quick_for_a_disk_of_an_exbibyte(self):
        extents = [Extent(0, 5, Kind.DATA), Extent(5, (1 << 60) - 5, Kind.ZERO)]
        assert list(align(extents, 4096, 1 << 60)) == [
            Extent(0, 4096, Kind.DATA),
            Extent(4096, (1 << 60) - 4096, Kind.ZERO),
        ]


class TestSplit:
    @given(st.lists(st.builds(Range, st.integers(0, 300), st.integers(0, 100)), max_size=8), st.integers(1, 64))
    def test_the_same_bytes_in_the_same_order_in_pieces_that_cross_no_multiple(self, ranges, length):
        pieces = list(split(ranges, length))
        assert all(piece.length > 0 for piece in pieces)
        assert all(piece.offset // length == (piece.offset + piece.length - 1) // length for piece in pieces)
        assert [at for offset, size in pieces for at in range(offset, offset + size)] == [
            at for offset, size in ranges for at in range(offset, offset + size)
        ]

    @given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 64))
    def test_no_more_pieces_than_needed(self, offset, size, length):
        pieces = list(split([Range(offset, size)], length))
        assert len(pieces) == (offset + size - 1) // length - offset // length + 1
