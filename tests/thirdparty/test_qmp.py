"""vbackup-qmp, installed from its wheel: its own tests on real QEMU processes, and the command with it."""

from __future__ import annotations

from pathlib import Path

from tests.thirdparty.environments import HERE, Environment
from vbackup.testing.hypervisor_contract import (
    HypervisorContract,
    LostGuestContract,
    MarkersContract,
    ProcessContract,
    TwoGuestsContract,
)

_QMP = HERE / "vbackup-qmp"
_CONTRACT = "test_contract.py"
_CONTRACTS = [
    HypervisorContract,
    LostGuestContract,
    MarkersContract,
    ProcessContract,
    TwoGuestsContract,
]
"""All but `UnreachableContract`: its machines are a matter of the configuration, there is no server to reach."""
_NOT_FOR_IT = {"test_with_its_memory"}


def test_its_contract(environment: Environment, tmp_path: Path) -> None:
    """All of it, none skipped, where there is nothing of the source tree."""
    passed = environment.suite(_QMP, tmp_path, f"tests/{_CONTRACT}")
    promised = {test for contract in _CONTRACTS for test in dir(contract) if test.startswith("test_")}
    assert promised - {test.rpartition(".")[2] for test in passed} == _NOT_FOR_IT


def test_its_own_tests(environment: Environment, tmp_path: Path) -> None:
    """What only it knows of, and a cycle of backups by the command."""
    passed = environment.suite(_QMP, tmp_path, f"--ignore=tests/{_CONTRACT}")
    assert {"test_cycle.test_backup_change_restore", "test_capture.test_dying_at_every_word_to_qemu"} <= passed


def test_the_command_knows_it(environment: Environment, tmp_path: Path) -> None:
    """It is listed with its origin, its options are in the schema, and a configuration of it is checked."""
    listed = environment.run(environment.vbackup, "plugins", cwd=tmp_path)
    assert "vbackup-qmp 0.1.0" in " ".join(listed.stdout.split()), listed.stdout + listed.stderr
    schema = environment.run(environment.vbackup, "schema", cwd=tmp_path)
    assert "the UNIX socket of a QMP monitor" in schema.stdout, schema.stderr
    configuration = tmp_path / "vbackup.yaml"
    configuration.write_text("hypervisors:\n  lab: {type: qmp, machines: {web: {socket: web.qmp}}}\n")
    wrong = environment.run(environment.vbackup, "-c", configuration, "run", cwd=tmp_path)
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
    assert "vbackup.yaml:2:" in wrong.stderr
    assert "must be an absolute path" in wrong.stderr
