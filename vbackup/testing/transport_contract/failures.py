"""What goes wrong at a place is told by the kind of the error: nobody tries again what cannot succeed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Level,
    NoSpace,
    NotFound,
    Transport,
    Unavailable,
    Unsupported,
    VBackupError,
)
from vbackup.testing.equal import assert_equal
from vbackup.testing.transport_contract.base import MIB, keys_of

Actions = dict[str, Callable[[], object]]


class MissingPlaceContract:
    """A directory, bucket, export or share that is not there, or whose disk is not mounted."""

    @pytest.fixture
    def missing(self) -> Transport:
        """Override: a transport that reaches its server, if it has one, and whose place is not there."""
        raise NotImplementedError

    def test_a_missing_place_is_not_an_empty_one(self, missing: Transport) -> None:
        """Nothing but `create` makes it; there is no use in trying again, and it is said what to do."""
        actions = reads(missing, "points/a") | lists(missing, "points") | changes(missing, "points/a")
        for name, action in actions.items():
            error = failure(name, action, Unavailable)
            assert not error.transient, name
            assert error.hint, name

    def test_looking_at_a_missing_place_finds_it(self, missing: Transport) -> None:
        """``vbackup doctor`` says so, and does not make it."""
        assert {finding.level for finding in missing.check()} - {Level.OK}
        with pytest.raises(Unavailable):
            list(missing.list())


class DeniedContract:
    """Credentials that are wrong, expired or withdrawn."""

    @pytest.fixture
    def denied(self) -> Transport:
        """Override: a transport whose credentials are refused, on a place that is there."""
        raise NotImplementedError

    def test_refused_credentials_are_access_denied(self, denied: Transport) -> None:
        """Whatever is asked for; there is no use in trying again, and it is said what to do."""
        actions = reads(denied, "points/a") | lists(denied, "points") | changes(denied, "points/a")
        for name, action in actions.items():
            error = failure(name, action, AccessDenied)
            assert not error.transient, name
            assert error.hint, name

    def test_looking_with_refused_credentials_finds_that(self, denied: Transport) -> None:
        """``vbackup doctor`` says so."""
        assert Level.ERROR in {finding.level for finding in denied.check()}


class ReadOnlyContract:
    """Credentials, a share or a file system that only read."""

    @pytest.fixture
    def read_only(self) -> Transport:
        """Override: a transport that may not write, on a place whose only object ``a/b`` holds ``there``."""
        raise NotImplementedError

    def test_a_place_that_only_reads(self, read_only: Transport) -> None:
        """Reading works; what changes something is refused, names the object, and changes nothing."""
        for name, action in changes(read_only, "a/b").items():
            kinds = (AccessDenied, AlreadyExists) if name == "create" else AccessDenied
            error = failure(name, action, kinds)
            assert not error.transient, name
            assert "a/b" in str(error), name
        for name in ("replace", "create"):
            if new := changes(read_only, "new").get(name):
                failure(name, new, AccessDenied)
        assert read_only.get("a/b") == b"there"
        assert read_only.size("a/b") == 5
        assert keys_of(read_only) == ["a/b"]


class FullContract:
    """A disk without space, or a quota that is used up."""

    room = 64
    """MiB that the place has at the most."""

    @pytest.fixture
    def full(self) -> Transport:
        """Override: a transport on an empty place that takes a few MiB, and at most `room`."""
        raise NotImplementedError

    def test_a_full_place_takes_nothing_and_loses_nothing(self, full: Transport) -> None:
        """It says so; nothing half-written is there, old objects are whole, and deleting gives space back."""
        stored, refused = self._fill(full)
        self._assert_holds(full, stored)
        with pytest.raises(NotFound):
            full.get(refused)
        for _ in range(len(stored) + 1):  # what fails leaves nothing that fills the place further
            _need_no_space(full, refused, if_absent=False)
        first, *others = sorted(stored)
        _need_no_space(full, first, if_absent=False, megabytes=self.room)
        self._assert_holds(full, stored)
        for key in others:
            full.delete(key)
        self._assert_holds(full, {first: stored[first]})
        for key in others:
            full.put(key, stored[key], if_absent=full.can_put_if_absent)
        self._assert_holds(full, stored)

    def test_a_full_place_refuses_to_create(self, full: Transport) -> None:
        """The name stays free: whoever asked for it does not have it."""
        self._fill(full)
        if full.can_put_if_absent:
            _need_no_space(full, "locks/a", if_absent=True)
        else:
            failure("create", lambda: full.put("locks/a", b"", if_absent=True), Unsupported)
        assert "locks/a" not in keys_of(full)

    def _fill(self, full: Transport) -> tuple[dict[str, bytes], str]:
        """Put objects of 1 MiB until it is full; return them, and the key of the one that was refused."""
        stored: dict[str, bytes] = {}
        for number in range(self.room + 1):
            key, data = f"packs/{number:04}", random.Random(number).randbytes(MIB)  # noqa: S311 - no secret
            try:
                full.put(key, data)
            except NoSpace as error:
                _assert_helpful(error, key)
                assert len(stored) > 1, "there is not even space for two objects of 1 MiB"
                return stored, key
            stored[key] = data
        raise AssertionError(f"{self.room} MiB were stored, and it is not full")

    def _assert_holds(self, full: Transport, stored: dict[str, bytes]) -> None:
        assert {info.key: info.size for info in full.list()} == {key: len(data) for key, data in stored.items()}
        for key, data in stored.items():
            assert_equal(key, full.get(key), data)


class FailureContract(MissingPlaceContract, DeniedContract, ReadOnlyContract, FullContract):
    """All of them, for a store that has accounts, permissions and quotas."""


def _need_no_space(full: Transport, key: str, *, if_absent: bool, megabytes: int = 1) -> None:
    with pytest.raises(NoSpace) as caught:
        full.put(key, random.Random(key).randbytes(megabytes * MIB), if_absent=if_absent)  # noqa: S311 - no secret
    _assert_helpful(caught.value, key)


def _assert_helpful(error: NoSpace, key: str) -> None:
    assert key in str(error)
    assert error.hint
    assert not error.transient


def reads(transport: Transport, key: str) -> Actions:
    """Return what reads an object, by name."""
    return {
        "get": lambda: transport.get(key),
        "range": lambda: transport.get(key, 1, 2),
        "size": lambda: transport.size(key),
    }


def lists(transport: Transport, prefix: str) -> Actions:
    """Return what lists, by name."""
    return {"list all": lambda: list(transport.list()), "list": lambda: list(transport.list(prefix))}


def changes(transport: Transport, key: str) -> Actions:
    """Return what changes an object, by name."""
    actions: Actions = {"replace": lambda: transport.put(key, b"new"), "delete": lambda: transport.delete(key)}
    if transport.can_put_if_absent:
        actions["create"] = lambda: transport.put(key, b"new", if_absent=True)
    return actions


def failure(
    name: str, action: Callable[[], object], kinds: type[VBackupError] | tuple[type[VBackupError], ...]
) -> VBackupError:
    """Return the error that ``action`` ends with, which must be of these kinds."""
    try:
        done = action()
    except kinds as error:
        return error
    except VBackupError as error:
        raise AssertionError(f"{name} raised {type(error).__name__}: {error}") from error
    raise AssertionError(f"{name} raised nothing and returned {done!r:.80}")
