"""What a transport says that it can do, it does; what it says that it cannot, it refuses."""

from __future__ import annotations

from datetime import timedelta

import pytest

from vbackup.api import AlreadyExists, Locked, NotFound, Transport, Unsupported, clock
from vbackup.testing.equal import assert_equal
from vbackup.testing.transport_contract.base import OnePlace, keys_of, patiently

_LONG = timedelta(hours=1)
_SHORT = timedelta(seconds=2)


class CapabilityContract(OnePlace):
    """The answers of `can_put_if_absent` and `can_lock`."""

    def test_put_if_absent(self, transport: Transport) -> None:
        """A name that is taken is refused and the object stays as it was; where that cannot be, nothing is stored."""
        if transport.can_put_if_absent:
            transport.put("locks/a", b"first", if_absent=True)
        else:
            transport.put("locks/a", b"first")
        with pytest.raises(AlreadyExists if transport.can_put_if_absent else Unsupported, match="locks/a"):
            transport.put("locks/a", b"second", if_absent=True)
        if not transport.can_put_if_absent:
            with pytest.raises(Unsupported, match="locks/b"):
                transport.put("locks/b", b"first", if_absent=True)
        assert transport.get("locks/a") == b"first"
        assert keys_of(transport) == ["locks/a"]

    def test_no_lock_where_there_are_none(self, transport: Transport) -> None:
        """A transport without locks says so; one that has them is tested by `LockContract`, too."""
        transport.put("points/a", b"1")
        if transport.can_lock:
            assert isinstance(self, LockContract), "can_lock is True: subclass LockContract as well"
            return
        with pytest.raises(Unsupported, match="points/a"):
            transport.lock("points/a", clock.now() + _LONG)
        transport.delete("points/a")
        assert keys_of(transport) == []


class LockContract:
    """Locks, where `can_lock` is True."""

    patience = 120.0
    """Seconds that a store may take to see that a lock has ended."""

    @pytest.fixture
    def lockable(self) -> Transport:
        """Override: a transport with locks, on an empty place that is thrown away: objects stay locked for an hour."""
        raise NotImplementedError

    def test_says_that_it_locks(self, lockable: Transport) -> None:
        """It is asked before anything is locked."""
        assert lockable.can_lock

    def test_a_locked_object_stays_as_it_is(self, lockable: Transport) -> None:
        """It is neither deleted nor replaced; those beside it are."""
        lockable.put("points/a", b"kept")
        lockable.put("points/b", b"free")
        lockable.lock("points/a", clock.now() + _LONG)
        _assert_locked(lockable, "points/a", b"kept")
        lockable.put("points/b", b"replaced")
        lockable.delete("points/b")
        assert keys_of(lockable) == ["points/a"]

    def test_locking_never_shortens(self, lockable: Transport) -> None:
        """A lock is extended; an earlier end is no error and changes nothing."""
        lockable.put("points/a", b"kept")
        lockable.lock("points/a", clock.now() + _SHORT)
        lockable.lock("points/a", clock.now() + _LONG)
        lockable.lock("points/a", clock.now() + _SHORT)
        lockable.lock("points/a", clock.now() - _LONG)
        _until_over(lockable, self.patience)
        _assert_locked(lockable, "points/a", b"kept")

    def test_a_lock_ends(self, lockable: Transport) -> None:
        """Afterwards the object can be deleted, and its name is free."""
        lockable.put("points/a", b"kept")
        lockable.lock("points/a", clock.now() + _SHORT)
        patiently(lambda: lockable.delete("points/a"), self.patience, Locked)
        with pytest.raises(NotFound):
            lockable.get("points/a")
        lockable.put("points/a", b"new")
        assert lockable.get("points/a") == b"new"

    def test_what_is_not_there_cannot_be_locked(self, lockable: Transport) -> None:
        """It says so, and its name stays free."""
        with pytest.raises(NotFound, match="points/x"):
            lockable.lock("points/x", clock.now() + _LONG)
        lockable.put("points/x", b"1")
        lockable.delete("points/x")


def _assert_locked(transport: Transport, key: str, data: bytes) -> None:
    with pytest.raises(Locked, match=key) as delete:
        transport.delete(key)
    with pytest.raises(Locked, match=key) as replace:
        transport.put(key, b"replaced")
    assert not delete.value.transient
    assert not replace.value.transient
    if transport.can_put_if_absent:
        with pytest.raises((AlreadyExists, Locked)):
            transport.put(key, b"made anew", if_absent=True)
    assert_equal(key, transport.get(key), data)
    assert key in keys_of(transport)


def _until_over(transport: Transport, patience: float) -> None:
    """Wait, by a lock that is as short, until the store holds short locks for ended."""
    transport.put("points/short", b"1")
    transport.lock("points/short", clock.now() + _SHORT)
    patiently(lambda: transport.delete("points/short"), patience, Locked)
