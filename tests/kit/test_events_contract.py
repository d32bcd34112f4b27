"""A listener keeps the contract that strangers get; and it finds what breaks it."""

from __future__ import annotations

import logging

import pytest
from pluggy import PluginValidationError

from tests.kit import listeners
from vbackup.testing import leftovers
from vbackup.testing.events_contract import EventsContract


class TestMetrics(EventsContract):
    @pytest.fixture
    def plugin(self):
        return listeners.Metrics()


def test_the_contract_tells_what_a_job_does():
    """From the start to the end, with all numbers that a job counts."""
    plugin = listeners.Metrics()
    EventsContract().test_a_backup_that_goes_well(plugin, "web")
    assert plugin.counts["started"] == 2
    assert plugin.counts["lab:web:vda"] == 100
    assert {plugin.sent.get() for _ in range(2)} == {f"web: {'0123456789abcdef' * 2}"}


BROKEN = [
    (listeners.Raises, "test_a_backup_that_fails", ("it failed",), ConnectionError),
    (listeners.NeedsStart, "test_a_backup_that_fails", ("it failed",), KeyError),
    (listeners.Divides, "test_a_backup_that_goes_well", ("web",), ZeroDivisionError),
    (listeners.OnlyForward, "test_a_backup_that_begins_again", (), ValueError),
    (listeners.OnlyForward, "test_a_run_that_is_interrupted", (), ValueError),
    (listeners.ByName, "test_the_same_machine_name_elsewhere", (), ValueError),
    (listeners.Formats, "test_a_backup_that_goes_well", ("a%sb{0}",), TypeError),
    (listeners.OneThread, "test_many_machines_at_once", (), RuntimeError),
    (listeners.Changes, "test_a_backup_that_goes_well", ("web",), AssertionError),
    (listeners.Leaks, "test_a_backup_that_goes_well", ("web",), AssertionError),
    (listeners.SetsVariable, "test_a_backup_that_goes_well", ("web",), AssertionError),
    (listeners.Logs, "test_a_backup_that_goes_well", ("web",), AssertionError),
    (listeners.Loud, "test_a_backup_that_goes_well", ("web",), AssertionError),
    (listeners.Moves, "test_a_backup_that_goes_well", ("web",), AssertionError),
    (listeners.Deaf, "test_listens", (), AssertionError),
    (listeners.HalfDeaf, "test_listens", (), AssertionError),
    (listeners.Misnamed, "test_listens", (), PluginValidationError),
    (listeners.WrongArgument, "test_listens", (), PluginValidationError),
]


@pytest.fixture
def put_right(monkeypatch, tmp_path):
    monkeypatch.setattr(leftovers, "_PATIENCE", 0.2)
    monkeypatch.chdir(tmp_path)
    listeners.Leaks.over.clear()
    level = logging.getLogger("vbackup").level
    yield
    for handler in list(logging.root.handlers):
        if type(handler) is logging.NullHandler:
            logging.root.removeHandler(handler)
    logging.getLogger("vbackup").setLevel(level)
    listeners.Leaks.over.set()


@pytest.mark.parametrize(
    ("cls", "test", "arguments", "error"), BROKEN, ids=[f"{cls.__name__}-{test}" for cls, test, *_ in BROKEN]
)
def test_plugins_that_break_the_contract_are_found(put_right, cls, test, arguments, error):
    """What a hook raises comes out as it is."""
    with pytest.raises(error):
        getattr(EventsContract(), test)(cls(), *arguments)


def test_what_was_left_behind_is_named(put_right):
    for cls, message in (
        (listeners.SetsVariable, "variable DASHBOARD_URL: None before"),
        (listeners.Leaks, "thread sender"),
    ):
        with pytest.raises(AssertionError, match=message):
            EventsContract().test_a_backup_that_goes_well(cls(), "web")
