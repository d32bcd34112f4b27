"""What a hypervisor says of itself and of its machines."""

from __future__ import annotations

import contextlib

import pytest
from pydantic import ValidationError

from vbackup.api import CaptureRequest, Hypervisor, Level, NotFound, Unsupported, VBackupError
from vbackup.testing.hypervisor_contract.backups import Backups
from vbackup.testing.hypervisor_contract.base import OWNER, GuestUnderTest, Leftovers, OneGuest, ref

UNKNOWN = "no machine has this name"


class ListingContract(OneGuest):
    """`Hypervisor.machines`, `options`, `check`, `answers` and `close`; and machines that are not there."""

    def test_says_what_it_is(self, hypervisor: Hypervisor) -> None:
        """A name, a model of its options, and whether it writes files (`Hypervisor`, its class attributes).

        The name is what users write behind ``type:``, the options are what stands beside it.
        """
        assert type(hypervisor).name
        assert type(hypervisor).options.model_json_schema()
        assert isinstance(type(hypervisor).writes_files, bool)

    def test_unknown_options_are_refused(self, hypervisor: Hypervisor) -> None:
        """A key that the options do not have is an error, so that a slip of the pen is told with its line.

        Base the model on `vbackup.api.Options`, and it is.
        """
        with pytest.raises(ValidationError) as told:
            type(hypervisor).options.model_validate({"no_such_option": 1})
        kinds = [each["type"] for each in told.value.errors() if each["loc"] == ("no_such_option",)]
        assert kinds == ["extra_forbidden"]

    def test_lists_its_machines(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """All machines are listed, each once, with an identity that stays (`Hypervisor.machines`, `MachineRef`)."""
        machines = hypervisor.machines()
        assert guest.name in [machine.name for machine in machines]
        assert len({machine.name for machine in machines}) == len(machines), "names are unique"
        assert len({machine.id for machine in machines}) == len(machines), "identities are unique"
        assert all(machine.id for machine in machines)
        assert {machine.name: machine.id for machine in hypervisor.machines()} == {
            machine.name: machine.id for machine in machines
        }

    def test_a_machine_that_is_not_there_cannot_be_captured(self, hypervisor: Hypervisor, leftovers: Leftovers) -> None:
        """`Hypervisor.capture` raises `NotFound`, with the name in the message, as the context is entered or before."""
        before = sorted(leftovers())
        with pytest.raises(NotFound, match=UNKNOWN), hypervisor.capture(UNKNOWN, CaptureRequest(OWNER)):
            pass
        assert sorted(leftovers()) == before

    def test_answers_for_machines_that_are_there(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Hypervisor.answers` is True or False, or `Unsupported` without an agent; `NotFound` without a machine."""
        with contextlib.suppress(Unsupported):
            assert isinstance(hypervisor.answers(guest.name), bool)
        with pytest.raises((NotFound, Unsupported), match=UNKNOWN):
            hypervisor.answers(UNKNOWN)

    def test_check_finds_nothing_wrong(self, hypervisor: Hypervisor, leftovers: Leftovers) -> None:
        """Where it works `Hypervisor.check` says so, in findings that say what was looked at, and leaves nothing."""
        before = sorted(leftovers())
        findings = list(hypervisor.check())
        assert findings, "say at least what it is that works"
        assert all(finding.what and finding.detail for finding in findings)
        assert not [finding for finding in findings if finding.level is Level.ERROR]
        assert sorted(leftovers()) == before

    def test_a_sweep_of_nothing(self, hypervisor: Hypervisor, leftovers: Leftovers) -> None:
        """`Hypervisor.sweep` has nothing to tell where nobody died, and says so with an empty list."""
        before = sorted(leftovers())
        assert hypervisor.sweep(OWNER) == []
        assert sorted(leftovers()) == before

    def test_close_twice(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Hypervisor.close` lets go of connections; once more is no error, nor is it for one that was never used."""
        Backups(hypervisor, guest).run()
        hypervisor.close()
        hypervisor.close()


class UnreachableContract:
    """A hypervisor that cannot be reached. Subclass it beside `HypervisorContract` where there is a connection."""

    @pytest.fixture
    def unreachable(self) -> Hypervisor:
        """Override: a hypervisor whose options lead to where nobody listens."""
        raise NotImplementedError("override the fixture unreachable")

    def test_constructing_does_not_connect(self, unreachable: Hypervisor) -> None:
        """It is constructed all the same; `machines` is the first to fail, by a transient error (`Hypervisor`).

        A run then fails the machines of this hypervisor, and goes on with those of others.
        """
        with pytest.raises(VBackupError) as told:
            unreachable.machines()
        assert told.value.transient
        assert told.value.kind == "unavailable"

    def test_a_capture_fails_as_well(self, unreachable: Hypervisor) -> None:
        """`Hypervisor.capture` raises `Unavailable`: whether the machine is there cannot be told."""
        with pytest.raises(VBackupError) as told, unreachable.capture("web", CaptureRequest(OWNER)):
            pass
        assert told.value.kind == "unavailable"

    def test_check_tells_and_does_not_raise(self, unreachable: Hypervisor) -> None:
        """For ``vbackup doctor`` it is a finding, with what to do about it."""
        errors = [finding for finding in unreachable.check() if finding.level is Level.ERROR]
        assert errors
        assert all(finding.detail for finding in errors)

    def test_close(self, unreachable: Hypervisor) -> None:
        """There is nothing to let go of, which is no error."""
        unreachable.close()


def is_running(hypervisor: Hypervisor, guest: GuestUnderTest) -> bool:
    """Whether the guest is listed as running."""
    return ref(hypervisor, guest.name).running
