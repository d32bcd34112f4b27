"""Leases: ready within, alive as long as they are needed, and ended once on every way out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import NoSpace, Unavailable, VBackupError
from vbackup.testing.lab.libvirtd import until
from vbackup_vsphere.lease import Lease
from vbackup_vsphere.session import Session

from .frozen import Machine, session_with


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(lease_timeout="1s") as one:
        yield one


@pytest.fixture(scope="module")
def session(simulator: Simulator) -> Iterator[Session]:
    with session_with(simulator) as one:
        yield one


@pytest.fixture
def exported(simulator: Simulator, session: Session) -> Iterator[Callable[[], Any]]:
    """Give what begins to export a snapshot, and returns the lease as vSphere knows it."""
    with Machine.find(simulator, session).frozen() as (frozen, _):
        snapshot = session.object(vim.vm.Snapshot, frozen.snapshot)
        yield lambda: session.call("exporting", snapshot.ExportSnapshot)


class Ends:
    """How often leases were ended since."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._before = self._now()

    def _now(self) -> tuple[int, int]:
        calls = self._simulator.calls()
        return calls.get("HttpNfcLeaseComplete", 0), calls.get("HttpNfcLeaseAbort", 0)

    @property
    def since(self) -> tuple[int, int]:
        completed, aborted = self._now()
        return completed - self._before[0], aborted - self._before[1]


def await_calls(simulator: Simulator, method: str, count: int) -> None:
    until(lambda: simulator.calls().get(method, 0) >= count, f"{count} calls of {method}")


def test_a_lease_gives_urls_and_is_completed(simulator: Simulator, session: Session, exported: Any) -> None:
    ends = Ends(simulator)
    with Lease(session, exported(), "exporting web") as lease:
        assert [url.is_disk for url in lease.urls] == [True]
        with session.open("GET", lease.urls[0].url) as answer:
            assert answer.read(4) == b"KDMV"
        assert ends.since == (0, 0)
    assert ends.since == (1, 0)


def test_an_error_aborts_it(simulator: Simulator, session: Session, exported: Any) -> None:
    ends = Ends(simulator)
    with contextlib.suppress(KeyError), Lease(session, exported(), "exporting web"):
        raise KeyError
    assert ends.since == (0, 1)


@pytest.mark.parametrize(("method", "told"), [("complete", (1, 0)), ("abort", (0, 1))])
def test_it_is_ended_once(
    simulator: Simulator, session: Session, exported: Any, method: str, told: tuple[int, int]
) -> None:
    ends = Ends(simulator)
    with Lease(session, exported(), "exporting web") as lease:
        getattr(lease, method)()
        lease.complete()
        lease.abort()
    assert ends.since == told


def test_progress_keeps_it_alive(simulator: Simulator, session: Session, exported: Any) -> None:
    before = simulator.calls().get("HttpNfcLeaseProgress", 0)
    with Lease(session, exported(), "exporting web") as lease:
        lease.progress(250)
        await_calls(simulator, "HttpNfcLeaseProgress", before + 6)  # a lease dies after the time of four
        lease.check()


def test_it_outlives_a_session(simulator: Simulator, session: Session, exported: Any) -> None:
    with Lease(session, exported(), "exporting web") as lease:
        simulator.expire_sessions()
        before = simulator.calls().get("HttpNfcLeaseProgress", 0)
        await_calls(simulator, "HttpNfcLeaseProgress", before + 2)
        lease.check()


def test_one_failing_report_loses_nothing(simulator: Simulator, session: Session, exported: Any) -> None:
    simulator.fault("HttpNfcLeaseProgress", "HostCommunication")
    with Lease(session, exported(), "exporting web") as lease:
        await_calls(simulator, "HttpNfcLeaseProgress", simulator.calls().get("HttpNfcLeaseProgress", 0) + 3)
        lease.check()


def test_reports_that_keep_failing_lose_it(simulator: Simulator, session: Session, exported: Any) -> None:
    ends = Ends(simulator)
    simulator.fault("HttpNfcLeaseProgress", "HostCommunication", times=8)
    with contextlib.ExitStack() as stack:
        lease = stack.enter_context(Lease(session, exported(), "exporting web"))
        lease.pause(60)
        assert lease.lost is not None
        with pytest.raises(Unavailable, match="exporting web: the lease was lost") as caught:
            lease.check()
        assert caught.value.transient
        with pytest.raises(Unavailable, match="exporting web: the lease was lost"):
            stack.close()
    assert ends.since == (0, 1)


def test_a_completion_that_fails_is_an_error_and_an_abort(
    simulator: Simulator, session: Session, exported: Any
) -> None:
    ends = Ends(simulator)
    simulator.fault("HttpNfcLeaseComplete", "NoDiskSpace", "the datastore is full")
    with pytest.raises(VBackupError, match="the datastore is full"), Lease(session, exported(), "importing web"):
        pass
    assert ends.since == (1, 1)


def test_an_abort_that_fails_hides_no_error(simulator: Simulator, session: Session, exported: Any) -> None:
    simulator.fault("HttpNfcLeaseAbort", "InvalidState")
    with pytest.raises(KeyError), Lease(session, exported(), "exporting web"):
        raise KeyError


def test_a_lease_that_is_over_is_refused(simulator: Simulator, session: Session, exported: Any) -> None:
    ref = exported()
    session.call("ending", ref.HttpNfcLeaseComplete)
    with pytest.raises(Unavailable, match="exporting web: the lease is done"), Lease(session, ref, "exporting web"):
        pass


def test_it_is_waited_for(simulator: Simulator, session: Session, exported: Any) -> None:
    simulator.lease_delay(300)
    try:
        with Lease(session, exported(), "exporting web") as lease:
            assert lease.urls
    finally:
        simulator.lease_delay(0)


def test_one_that_cannot_be_had_is_an_error(simulator: Simulator, session: Session, exported: Any) -> None:
    simulator.lease_fault("NoDiskSpace")
    with pytest.raises(NoSpace, match="exporting web"), Lease(session, exported(), "exporting web"):
        pass
