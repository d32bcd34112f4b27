"""Comparing what is too long to be shown: by ``assert a == b`` pytest would take minutes for two disks that differ."""

from __future__ import annotations

from vbackup.api import Buffer


def assert_equal(what: str, found: Buffer, expected: Buffer) -> None:
    """Fail with where the first byte differs; ``what`` is what the bytes are of."""
    one, other = bytes(found), bytes(expected)
    if len(one) != len(other):
        raise AssertionError(f"{what}: {len(one)} bytes instead of {len(other)}")
    if one != other:
        at = _first_difference(one, other)
        raise AssertionError(
            f"{what}: differs from byte {at} on: {one[at : at + 8].hex()} instead of {other[at : at + 8].hex()}"
        )


def _first_difference(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
