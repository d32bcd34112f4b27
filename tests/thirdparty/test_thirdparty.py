"""Plugins that strangers wrote, from their wheels, in an environment that has nothing else: their own tests pass there.

Each has the contract of its role among them, and a cycle of backups by the command as it is installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.thirdparty.environments import HERE, Environment
from vbackup.testing.codec_contract import CodecContract
from vbackup.testing.transport_contract import (
    FailureContract,
    HostsContract,
    ServerContract,
    SilentContract,
    TransportContract,
)

CONTRACTS = {
    "vbackup-brotli": [CodecContract],
    "vbackup-webdav": [TransportContract, HostsContract, FailureContract, ServerContract, SilentContract],
}
"""What each must keep; vbackup-qmp, which needs machines that run, has a test of its own."""


@pytest.mark.parametrize("name", CONTRACTS)
def test_its_own_tests_pass(environment: Environment, name: str, tmp_path: Path) -> None:
    """All of its contract, none of it skipped, and a cycle of backups among them."""
    passed = environment.suite(HERE / name, tmp_path)
    promised = {test for contract in CONTRACTS[name] for test in dir(contract) if test.startswith("test_")}
    assert promised - {test.rpartition(".")[2] for test in passed} == set()
    assert "test_cycle.test_a_cycle_of_backups" in passed


@pytest.mark.parametrize("name", CONTRACTS)
def test_it_says_where_it_is_from(environment: Environment, name: str, tmp_path: Path) -> None:
    """`vbackup plugins` finds it as it finds its own: by its entry point."""
    done = environment.run(environment.vbackup, "plugins", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [line] = [line.split() for line in done.stdout.splitlines() if name in line]
    assert line[:4] == [name.removeprefix("vbackup-"), name, "0.1.0", "ok"]
