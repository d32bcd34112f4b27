"""Names of objects: what may be one, and what a hostile store may not make us open."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbackup.api import Corrupt, checked_key

segments = st.from_regex(re.compile(r"[a-z0-9][a-z0-9_-]{0,60}", re.ASCII), fullmatch=True)


def ascii_start(key):
    return f"{key[:20]!a}-{len(key)}"


@given(st.lists(segments, min_size=1, max_size=8).map("/".join))
def test_good_names_are_returned_as_they_are(key):
    assert checked_key(key) == key


@pytest.mark.parametrize("key", ["a", "0", "repository", "packs/00/0123456789abcdef", "a-b_c/d--/e__", "x" * 128])
def test_examples_of_good_names(key):
    assert checked_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "", "/", ".", "..", "../a", "a/..", "a/../b", "a/./b", "/etc/passwd", "a//b", "a/", "/a", "~", "~root/a",
        "a.b", ".tmp-a", ".hidden", "-option", "--help", "_a", "a/-b", "A", "aB", "con:", "a:b", "C:/a", "a\\b",
        "a b", " a", "a ", "a\tb", "a\n", "\na", "a\nb", "a\r", "a\0", "\0", "a\x1b[2J", "a\x7f", "\\\\host\\a",
        "%2e%2e", "a%2fb", "a?b", "a*", "a#b", "ä", "\uff41", "\u0430", "\u0661", "²", "ß", "a\u202eb", "a\u2044b",
        "a\ufeff", "\udcff", "a" * 129, "a/" * 8 + "a", "/".join(["a" * 127] * 5), "a" * 1_000_000,
        "a/" * 1_000_000, "a" * 128 + "\n",
    ],
    ids=ascii_start,
)  # fmt: skip
def test_hostile_names_are_refused(key):
    with pytest.raises(Corrupt):
        checked_key(key)


@given(st.text(max_size=30))
def test_whatever_passes_is_plain(key):
    try:
        checked_key(key)
    except Corrupt:
        return
    assert key.isascii()
    assert not set(key) - set("abcdefghijklmnopqrstuvwxyz0123456789-_/")
    assert all(segment and segment[0] not in "-_" for segment in key.split("/"))


def test_the_message_is_short_and_has_no_raw_control_characters():
    with pytest.raises(Corrupt) as caught:
        checked_key("\x1b[2J\n" + "x" * 100_000)
    assert len(caught.value.message) < 250
    assert caught.value.message.isprintable()
