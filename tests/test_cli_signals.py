"""A run that is told to stop, or whose reader goes away, ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.commandline import VBACKUP, Vbackup, place, ready, vbackup

__all__ = ["place", "ready", "vbackup"]  # fixtures


def test_a_reader_that_goes_away_is_no_error(ready: Vbackup) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([*VBACKUP, "run", "--json"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(ready("list", "--json").json) == 2


WAITING_PLUGIN = r"""
    import os
    from vbackup.api import hookimpl

    @hookimpl
    def vbackup_job_started(event):
        os.write(2, b"waiting\n")
        with open(os.environ["TEST_GO_ON"]):
            pass
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_cleanly(
    place: Path, ready: Vbackup, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """A third-party plugin holds the run up at a known moment: opening a FIFO waits for its writer."""
    info = place / "plugins" / "waiting-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: waiting\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vbackup]\nwaiting = waiting_plugin\n")
    (place / "plugins" / "waiting_plugin.py").write_text(dedent(WAITING_PLUGIN))
    go_on = place / "go-on"
    os.mkfifo(go_on)
    environment = os.environ | {"PYTHONPATH": str(place / "plugins"), "TEST_GO_ON": str(go_on)}
    with subprocess.Popen(
        [*VBACKUP, "--json", "run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "waiting\n"
            process.send_signal(number)
            assert process.stderr.readline() == "vbackup: stopping; undoing what was begun\n"
            process.send_signal(number)
            assert process.stderr.readline() == "vbackup: still undoing what was begun\n"
            go_on.write_bytes(b"")
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["error"]["kind"] == "interrupted"
    assert len(ready("list", "--json").json) == 1
    assert ready("run").code == 0
