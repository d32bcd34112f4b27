"""What the target contract finds: each of these targets is right but for one thing."""

from __future__ import annotations

import inspect
from functools import partial

import pytest

from tests.kit.broken_targets import exchanging, points, reading, trouble, writing
from tests.kit.test_target_contract import flip, repository
from vbackup.api import Options, Target, VBackupError
from vbackup.registry.roles import ROLES
from vbackup.testing.target_contract import (
    DamageContract,
    DyingContract,
    ExchangeContract,
    OutageContract,
    TargetContract,
    context,
)
from vbackup.testing.target_contract.care import ORDERS
from vbackup.testing.transports import MemoryTransport


@pytest.fixture
def store():
    return MemoryTransport()


ROLE = next(role for role in ROLES if role.protocol is Target)
WRONG = [
    (writing.ShowsEarly, "test_a_point_is_there_when_it_is_committed_and_not_before", {}),
    (writing.CommitsAtTheEnd, "test_a_point_is_there_when_it_is_committed_and_not_before", {}),
    (writing.CommitsAtTheEnd, "test_a_run_that_fails_leaves_what_it_had_committed", {}),
    (writing.CommitsOnError, "test_a_run_that_fails_leaves_what_it_had_committed", {}),
    (writing.CommitsOnError, "test_what_is_not_committed_is_no_point", {}),
    (writing.ForgetsTheLastBlock, "test_disks_of_any_size", {"size": 100_000}),
    (writing.SectorsOnly, "test_disks_of_any_size", {"size": 1}),
    (writing.KeepsZerosOfTheBase, "test_zeros_are_zeros_however_they_come", {}),
    (writing.UnchangedIsZero, "test_points_are_built_on_points", {}),
    (writing.BytesOnly, "test_any_buffer", {"kind": memoryview}),
    (writing.NeverTheSame, "test_what_a_base_has_is_known", {}),
    (writing.AlwaysTheSame, "test_what_a_base_has_is_known", {}),
    (writing.LastByLength, "test_what_a_base_has_is_known", {}),
    (writing.CountsAll, "test_counts", {}),
    (writing.OddBlocks, "test_blocks_suit_the_framework", {}),
    (writing.TrustsBases, "test_what_can_be_built_on", {}),
    (writing.OneFile, "test_small_files", {"size": 1}),
    (writing.Objects, "test_what_a_point_says_is_json", {}),
    (writing.SweepsOthers, "test_a_run_within_another", {}),
    (reading.MixesRanges, "test_any_range", {}),
    (reading.WholeBlocks, "test_any_range", {}),
    (reading.ListsRanges, "test_ranges_are_asked_for_as_they_are_needed", {}),
    (reading.CallsZero, "test_what_a_disk_holds", {}),
    (reading.Gaps, "test_what_a_disk_holds", {}),
    (reading.UnchangedByDefault, "test_what_two_points_share", {}),
    (reading.EmptyForTheMissing, "test_what_is_not_there", {}),
    (reading.KeyErrors, "test_what_is_not_there", {}),
    (points.EmptyWhereThereIsNone, "test_a_place_without_a_target_is_no_empty_one", {}),
    (points.MadeAnew, "test_made_once", {}),
    (points.NewestFirst, "test_oldest_first", {}),
    (points.KeepsLess, "test_all_that_a_point_says_is_kept", {}),
    (points.DescribesAnew, "test_all_that_a_point_says_is_kept", {}),
    (points.ByMachine, "test_machines_of_any_name", {"machine": "a b"}),
    (points.DeletesWithData, "test_any_point_can_be_deleted", {"gone": (0,)}),
    (points.StaysListed, "test_what_is_deleted_is_gone", {}),
    (points.DeletesOnce, "test_what_is_deleted_is_gone", {}),
    (points.FindsTheDeletedDamaged, "test_what_is_deleted_is_gone", {}),
    (points.ProtectsOnce, "test_protected", {}),
    (points.ProtectsForItself, "test_protected", {}),
    (points.PrunesRuns, "test_pruning_beside_a_run", {}),
    (points.PrunesDry, "test_pruning_takes_nothing_that_is_needed", {}),
    (points.CountsPoints, "test_verifying_what_is_whole", {}),
    (points.ReadsInVain, "test_checking_what_is_whole", {"order": ORDERS["all read"]}),
    (points.AlwaysWrong, "test_checking_what_is_whole", {"order": ORDERS["all there"]}),
    (points.ClosesOnce, "test_closed_twice", {}),
]
DAMAGED = [
    (trouble.ReadsWrong, "test_damaged_data_is_found"),
    (trouble.AllDamaged, "test_damaged_data_is_found"),
    (trouble.ChecksNothing, "test_damaged_data_is_found"),
    (trouble.ReadsWrongOnce, "test_damaged_data_is_never_read"),
    (trouble.NamesNobody, "test_damaged_data_is_never_read"),
    (trouble.BuildsOnDamage, "test_damage_does_not_spread"),
    (trouble.KeepsTheDamaged, "test_a_damaged_point_is_told_of"),
    (trouble.HidesDamage, "test_a_damaged_point_is_told_of"),
    (trouble.StopsAtDamage, "test_a_damaged_point_is_told_of"),
]
TROUBLE = [
    (trouble.InitInTwo, DyingContract, "test_making_a_target"),
    (trouble.PointFirst, DyingContract, "test_making_a_point"),
    (trouble.DeletesInTwo, DyingContract, "test_deleting_a_point"),
    (trouble.PrunesInPlace, DyingContract, "test_pruning"),
    (trouble.EmptyWhenAway, OutageContract, "test_a_store_that_is_away"),
    (trouble.EmptyWhenAway, OutageContract, "test_a_store_that_is_away_for_a_moment"),
    (trouble.DamagedWhenAway, OutageContract, "test_a_store_that_is_away_for_a_moment"),
    (trouble.LosesWhenAway, OutageContract, "test_a_run_that_meets_an_outage"),
]
EXCHANGING = [
    (exchanging.ExchangesWithAll, "test_targets_made_apart"),
    (exchanging.ExchangesNothing, "test_only_those_of_shared_keys_exchange"),
    (exchanging.KeysOfItsOwn, "test_only_those_of_shared_keys_exchange"),
    (exchanging.MadeAnewWithKeys, "test_only_those_of_shared_keys_exchange"),
    (exchanging.ReadsAll, "test_a_base_saves_reading"),
    (exchanging.MakesItAnother, "test_points_that_are_taken_over"),
    (exchanging.TakesNothing, "test_points_that_are_taken_over"),
    (exchanging.SaysNothing, "test_progress"),
    (exchanging.IsNotStopped, "test_a_copy_that_is_stopped"),
]
FAILURES = (AssertionError, pytest.fail.Exception, VBackupError, KeyError, AttributeError, IndexError)
"""What a test of a broken target may end with; errors that the target itself makes among them."""


def names(mutants):
    return [f"{cls.__name__}-{test}" for cls, test, *_ in mutants]


def test_the_broken_ones_are_targets():
    for cls in {cls for cls, *_ in (*WRONG, *DAMAGED, *TROUBLE, *EXCHANGING)}:
        ROLE.check(cls)


@pytest.mark.parametrize(("cls", "test", "more"), WRONG, ids=names(WRONG))
def test_targets_that_break_the_contract_are_found(store, tmp_path, cls, test, more):
    def opens():
        return cls(Options(), context(store, tmp_path))

    method = getattr(TargetContract(), test)
    given = {"target_factory": opens, **more}
    if "target" in inspect.signature(method).parameters:
        given["target"] = opens()
        given["target"].init()
    wanted = inspect.signature(method).parameters
    with pytest.raises(FAILURES):
        method(**{name: value for name, value in given.items() if name in wanted})


@pytest.mark.parametrize(("cls", "test"), DAMAGED, ids=names(DAMAGED))
def test_targets_that_hide_damage_are_found(store, tmp_path, cls, test):
    def opens():
        return cls(Options(), context(store, tmp_path))

    def harm():
        if test == "test_a_damaged_point_is_told_of":
            store.put(list(store.list("points"))[-1].key, b"{}")
        else:
            flip(store, list(store.list("data"))[-2].key)

    target = opens()
    target.init()
    with pytest.raises(FAILURES):
        getattr(DamageContract(), test)(target, opens, harm)


@pytest.mark.parametrize(
    ("cls", "contract", "test"), TROUBLE, ids=[f"{cls.__name__}-{test}" for cls, _, test in TROUBLE]
)
def test_targets_that_bear_no_trouble_are_found(tmp_path, cls, contract, test):
    with pytest.raises(FAILURES):
        getattr(contract(), test)(lambda store: cls(Options(), context(store, tmp_path)))


@pytest.mark.parametrize(("cls", "test"), EXCHANGING, ids=names(EXCHANGING))
def test_targets_that_exchange_badly_are_found(tmp_path, cls, test):
    two = [partial(repository, MemoryTransport(), tmp_path / name, cls) for name in ("source", "destination")]
    with pytest.raises(FAILURES):
        getattr(ExchangeContract(), test)(two)
