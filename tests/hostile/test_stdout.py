"""Stdout has what was asked for, and nothing else, whatever plugins print and do to it."""

from __future__ import annotations

import json

import pytest

from tests.hostile.conftest import Place
from tests.hostile.processes import redirected, started

PRINTS = {
    "when it is imported": "print('noise')",
    "by a child": "import subprocess; subprocess.run(['echo', 'noise'])",
    "by its descriptor": "os.write(1, b'noise\\n')",
    "at the end": "import atexit; atexit.register(print, 'noise')",
    "from a thread that stays": "threading.Thread(target=lambda: (time.sleep(0.3), print('noise'))).start()",
    "wrapped": "import io; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, line_buffering=True); print('noise')",
    "held back": "import io; sys.stdout = io.StringIO(); sys.stderr.write('noise\\n')",
    "closed": "print('noise'); sys.stdout.close()",
    "gone": "print('noise'); sys.stdout = None",
}


def of(place: Place, *args: str) -> tuple[str, str, int]:
    """Run a command in a process of its own; return what it printed, and its exit code."""
    with started(place, *args) as process:
        out, err = process.communicate(timeout=100)
        return out, err, process.returncode


@pytest.mark.parametrize("how", PRINTS)
def test_what_plugins_print_is_not_what_was_asked_for(place: Place, how: str) -> None:
    place.wild("hypervisors", "Lab", PRINTS[how])
    out, err, code = of(place, "--json", "list")
    assert [point["machine"] for point in json.loads(out)] == ["web"]
    assert "noise" in err
    assert "Traceback" not in err
    assert code == 0


def test_one_document_is_printed_though_a_plugin_swallowed_the_signal(place: Place) -> None:
    body = """
    def points(self):
        import signal
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            return super().points()
    """
    place.wild("targets", "Shelf", body)
    out, err, code = of(place, "--json", "list")
    assert [point["machine"] for point in json.loads(out)] == ["web"]
    assert err.endswith("vbackup: error: stopped by SIGTERM\n")
    assert code == 143


@pytest.mark.parametrize("args", [("--json", "list"), ("list",)])
def test_a_stdout_that_takes_no_more_is_told(place: Place, args: tuple[str, ...]) -> None:
    done = redirected(place, *args, to=">/dev/full")
    assert done.stderr == "vbackup: error: stdout cannot be written to: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_without_somewhere_to_print_to_does_its_work(place: Place, closed: str) -> None:
    """Other files must not get the numbers of what is closed: messages would go into them."""
    place.wild("hypervisors", "Lab", "print('noise')")
    point = place.points()[0].id
    done = redirected(place, "protect", point, to=closed)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 0, done
    with place.site() as site:
        assert list(site.target("main").protected()) == [point]
    place.prove()
