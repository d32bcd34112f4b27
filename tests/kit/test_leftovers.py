"""What finds that a plugin's code left files open."""

from __future__ import annotations

import os

import pytest

from vbackup.testing.leftovers import nothing_left_open


def test_a_file_that_stays_open_is_named(tmp_path):
    with pytest.raises(AssertionError, match=r"left open: .*/kept"), nothing_left_open():
        kept = (tmp_path / "kept").open("wb")
    kept.close()


def test_a_file_that_was_open_before_may_be_closed(tmp_path):
    earlier = (tmp_path / "earlier").open("wb")
    with nothing_left_open():
        earlier.close()


def test_another_file_under_the_number_of_one_that_was_closed(tmp_path):
    number = os.open(tmp_path / "earlier", os.O_CREAT)
    other = os.open(tmp_path / "kept", os.O_CREAT)
    with pytest.raises(AssertionError, match=r"left open: .*/kept"), nothing_left_open():
        os.dup2(other, number)
    os.close(number)
    os.close(other)


def test_a_file_that_is_removed_while_it_is_open(tmp_path):
    with (tmp_path / "a").open("wb"), nothing_left_open():
        (tmp_path / "a").unlink()
