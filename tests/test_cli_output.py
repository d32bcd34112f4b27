"""What is shown: progress on a terminal, log records, tables and amounts, and nothing that a terminal would obey."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from textwrap import dedent

import pytest

from tests.commandline import VBACKUP, Vbackup, configure, place, ready, vbackup
from vbackup.cli import output

__all__ = ["place", "ready", "vbackup"]  # fixtures


def test_nothing_that_a_terminal_would_obey_is_printed(place: Path, ready: Vbackup) -> None:
    hostile = "web\x9b31m\u202e\u2028"
    configure(place, **{hostile: "web.qcow2"})
    outcomes = [ready("run"), ready("list"), ready("show", f"{hostile}@latest"), ready("show", "x\x1b[2J\r@latest")]
    outcomes += [ready("delete", f"{hostile}@latest"), ready(f"\x1b]0;title\x07{hostile}")]
    for outcome in outcomes:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]", outcome.out + outcome.err), outcome
    assert r"web\x9b31m\u202e\u2028" in outcomes[1].out
    assert r"x\x1b[2J\r" in outcomes[3].err
    assert ready("run", "--json").out.isascii()


def test_a_terminal_gets_a_line_when_a_machine_is_done(ready: Vbackup) -> None:
    assert "files:web: done: " in on_a_terminal(*VBACKUP, "run")


def test_a_terminal_gets_a_line_for_each_disk_with_what_was_skipped() -> None:
    program = """
        from vbackup.api import DiskProgress, JobProgress
        disk = DiskProgress("vda", 4096, 4096, 0, 2048, 1024, 1024)
        from vbackup.cli.progress import Bars
        with Bars() as bars:
            bars.vbackup_job_progress(JobProgress("j", "lab", "w[red]eb\\x1b[2J", disk))
    """
    shown = on_a_terminal(sys.executable, "-c", dedent(program))
    assert re.search(
        r"lab:w\[red\]eb\\x1b\[2J vda .* 4.0/4.0 KiB .* 2.0 KiB unchanged, 1.0 KiB zero, 1.0 KiB duplicate", shown
    ), shown


def on_a_terminal(*command: str) -> str:
    """Run a command with a terminal as its stderr; return what it showed, without the codes that move the cursor."""
    terminal, end = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end, env=environment) as process:
        os.close(end)
        shown = b""
        while chunk := _read(terminal):
            shown += chunk
    os.close(terminal)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux tells that the other end is closed
        return b""


def test_more_is_said_when_asked_for(ready: Vbackup) -> None:
    log = logging.getLogger("vbackup.test")
    for verbose, level in enumerate((logging.WARNING, logging.INFO, logging.DEBUG)):
        assert ready(*["-v"] * verbose, "plugins").code == 0
        assert log.getEffectiveLevel() == level


def test_log_records_are_cleaned(ready: Vbackup, capsys: pytest.CaptureFixture[str]) -> None:
    ready("plugins")
    logging.getLogger("vbackup.test").warning("machine %s", "\x1b[31m")
    assert capsys.readouterr().err == "vbackup: warning: machine \\x1b[31m\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 漢字 🦆", "plain äöü 漢字 🦆"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\rb\tc\x00", r"a\rb\tc\x00"),
        ("right\u202eleft\u200bzero", r"right\u202eleft\u200bzero"),
        ("lone \udc80", r"lone \udc80"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert output.clean(text) == shown


def test_a_table_is_as_wide_as_a_terminal_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(
        ("NAME", "SIZE", "NOTE"), [("漢字", "1", ""), ("a\u0308b", "10", "one\ntwo")], numbers=frozenset({"SIZE"})
    )
    assert capsys.readouterr().out == "NAME  SIZE  NOTE\n漢字     1\na\u0308b      10  one\\ntwo\n"


def test_amounts_for_people() -> None:
    sizes = [0, 1023, 1024, 1536 * 1024, 5 << 40, 3 << 50]
    assert [output.size(size) for size in sizes] == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB", "3.0 PiB"]
    spans = [0.04, 59.9, 60, 3599, 3661]
    assert [output.duration(span) for span in spans] == ["0.0 s", "59.9 s", "1:00", "59:59", "1:01:01"]
    berlin = timezone(timedelta(hours=1))
    assert output.moment(datetime(2026, 1, 31, 12, tzinfo=berlin)) == "2026-01-31T11:00:00Z"
