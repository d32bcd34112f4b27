"""Signals, whatever plugins have done to what they are heard by."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.hostile.conftest import Place
from tests.hostile.processes import ended, started
from vbackup.testing.lab.libvirtd import until

LEAVES_A_CHILD = {
    "a pool": "multiprocessing.Pool(1)",
    "a child": "multiprocessing.Process(target=threading.Event().wait, daemon=True).start()",
}


@pytest.mark.parametrize("leaves", LEAVES_A_CHILD)
def test_a_process_that_a_plugin_leaves_holds_no_command_up(place: Place, leaves: str) -> None:
    """It has inherited all that we have open."""
    place.wild("hypervisors", "Lab", f"import multiprocessing\nleft = {LEAVES_A_CHILD[leaves]}")
    code, err = ended(place, "list")
    assert (code, err) == (0, "")


def test_a_process_that_a_plugin_forks_ends_as_any_other(place: Place) -> None:
    """By the handlers that were there before ours."""
    body = """
    def machines(self):
        import multiprocessing
        child = multiprocessing.Process(target=threading.Event().wait)
        child.start()
        child.terminate()
        child.join()
        raise RuntimeError(f"the child ended with {child.exitcode}")
    """
    place.wild("hypervisors", "Lab", body)
    code, err = ended(place, "run")
    assert f"the child ended with {-signal.SIGTERM}" in err
    assert "Traceback" not in err
    assert code == 1
    place.prove()


def test_the_third_signal_needs_no_wakeup(place: Place) -> None:
    """An event loop in the main thread takes for itself what tells us of signals; later ones go to other threads.

    The kernel chooses the thread, and one that sleeps in a lock is not woken by what another one got.
    """
    body = """
    def machines(self):
        import asyncio, signal
        loop = asyncio.new_event_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
        loop.remove_signal_handler(signal.SIGUSR1)
        while True:
            try:
                os.write(2, b"waiting\\n")
                GO.wait()
            except BaseException:
                signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    """
    place.wild("hypervisors", "Lab", body)
    with started(place, "run") as process:
        lines = iter(process.stderr or ())
        assert "waiting\n" in lines
        process.send_signal(signal.SIGINT)
        assert "waiting\n" in lines
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(100) in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    place.prove()


def test_a_signal_stops_it_though_its_wakeup_is_closed(place: Place) -> None:
    """What fails in its handler must not be raised in place of it: the plugin would be told to have failed."""
    body = """
    def machines(self):
        import signal
        os.close(signal.set_wakeup_fd(-1))
        os.write(2, b"waiting\\n")
        GO.wait()
    """
    place.wild("hypervisors", "Lab", body)
    with started(place, "run") as process:
        assert "waiting\n" in iter(process.stderr or ())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert "failed" not in out + err
    assert process.returncode != 0
    place.prove()


def test_the_third_signal_ends_it_though_nobody_reads_why(place: Place) -> None:
    """Stderr is a pipe that is full, as to a pager that nobody looks at."""
    body = """
    def machines(self):
        os.set_blocking(2, False)
        try:
            while True:
                os.write(2, bytes(65536))
        except BlockingIOError:
            os.set_blocking(2, True)
        ready = ["full"]
        while True:
            try:
                while ready:
                    open(ready.pop(), "w").close()
                GO.wait()
            except BaseException:
                continue
    """
    place.wild("hypervisors", "Lab", body)
    os.mkfifo(place.directory / "full")
    with started(place, "run") as process:
        (place.directory / "full").read_bytes()
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            until(lambda: process.poll() is not None or is_delivered(process.pid), "the signal to be delivered")
        assert process.wait(100) == 128 + signal.SIGINT
    place.prove()


def is_delivered(pid: int) -> bool:
    """Whether no signal waits for a process: two of one kind would be one."""
    status = Path(f"/proc/{pid}/status").read_text()
    return all(int(line.split()[1], 16) == 0 for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd")))
