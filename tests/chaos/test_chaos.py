"""Chaos for a minute; ``pytest tests/chaos --chaos-seconds 600`` or ``python -m tests.chaos`` for longer."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.servers.stores import REMOTE, MakeStore


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["local", *REMOTE])
def test_every_promise_holds_after_chaos(kind: str, make_store: MakeStore, request: pytest.FixtureRequest) -> None:
    """Processes that write, prune, delete, verify and restore, killed and stopped at random; see `tests.chaos`."""
    seconds = request.config.getoption("--chaos-seconds")
    seed = request.config.getoption("--seed") or random.SystemRandom().randrange(1, 1 << 32)
    print(f"seed {seed}")
    seconds /= 1 if kind == "local" else 2
    command = [sys.executable, "-m", "tests.chaos", "--seconds", str(seconds), "--seed", str(seed)]
    command += ["--store", make_store(kind).entry]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-20_000:]
