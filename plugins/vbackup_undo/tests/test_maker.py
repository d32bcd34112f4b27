"""Who made something, and whether he still lives."""

from __future__ import annotations

import os
import subprocess

import pytest

from vbackup_undo.maker import Maker

OWNER = "ab" * 16


def test_we_live() -> None:
    maker = Maker.here(OWNER, 7)
    assert Maker.parse(maker.model_dump_json()) == maker
    assert maker.is_here()
    assert maker.is_this()
    assert not maker.is_dead()
    assert str(os.getpid()) in str(maker)


def test_a_process_that_has_ended() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert Maker.here(OWNER, 7).model_copy(update={"pid": child.pid}).is_dead()


@pytest.mark.parametrize("change", [{"start": 1}, {"boot": "of another boot"}])
def test_a_process_id_that_was_used_again(change: dict[str, object]) -> None:
    assert Maker.here(OWNER, 7).model_copy(update=change).is_dead()


def test_of_another_host_nothing_is_known() -> None:
    other = Maker.here(OWNER, 7).model_copy(update={"machine": "f" * 32, "host": "elsewhere", "start": 1})
    assert not other.is_here()
    assert not other.is_dead()
    assert not other.is_this()


@pytest.mark.parametrize(
    "change",
    [{"host": "backup2"}, {"boot": "of another boot", "created": 1 << 40}, {"pids": "1"}],
    ids=["another name", "another boot since ours", "another PID namespace"],
)
def test_a_clone_and_a_container_are_other_hosts(change: dict[str, object]) -> None:
    other = Maker.here(OWNER, 7).model_copy(update={"start": 1, **change})
    assert not other.is_here()
    assert not other.is_dead()


def test_what_was_written_before_namespaces_were() -> None:
    old = Maker.parse(Maker.here(OWNER, 7).model_dump_json(exclude={"pids"}))
    assert old is not None
    assert old.is_this()
    assert old.model_copy(update={"start": 1}).is_dead()


@pytest.mark.parametrize("text", ["", "by hand", "{}", '{"owner": "x"}', "[]"])
def test_what_others_wrote(text: str) -> None:
    assert Maker.parse(text) is None
