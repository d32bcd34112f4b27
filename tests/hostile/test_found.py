"""Finding plugins, where anything may be installed, and leaving some out by their names."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.commandline import VBACKUP
from tests.hostile.conftest import Place
from tests.hostile.test_loading import GOOD


def test_a_name_of_no_plugin_among_those_to_leave_out_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.install("wild", GOOD)
    monkeypatch.setenv("VBACKUP_DISABLED_PLUGINS", "wid, zstd,nothing-like-it,,lz")
    outcome = place.vbackup("list")
    assert outcome.err.splitlines() == [
        "vbackup: warning: VBACKUP_DISABLED_PLUGINS: there is no plugin 'lz'; did you mean 'lz4'?",
        "vbackup: warning: VBACKUP_DISABLED_PLUGINS: there is no plugin 'nothing-like-it'",
        "vbackup: warning: VBACKUP_DISABLED_PLUGINS: there is no plugin 'wid'; did you mean 'wild'?",
    ]
    assert outcome.code == 0


GARBLED = {
    "bytes": (b"\xff\xfe[vbackup]\n", "UnicodeDecodeError: "),
    "no value": (b"[console_scripts]\nnothing\n", "TypeError: "),
    "a link to itself": (None, "OSError: "),
}


@pytest.mark.parametrize(("content", "said"), GARBLED.values(), ids=GARBLED)
def test_a_distribution_with_unreadable_entry_points_is_left_out(
    place: Place, content: bytes | None, said: str
) -> None:
    """It need have nothing to do with vbackup. The first of a name counts, as ever.

    In a process of its own: here all libraries have already read what is installed.
    """
    place.install("old", GOOD, dist="stranger_wild")
    place.install("wild", GOOD)
    place.install("zebra", "1 / 0", dist="innocent")
    file = place.sites / "zebra" / "innocent-1.2.dist-info" / "entry_points.txt"
    file.unlink()
    if content is None:
        file.symlink_to(file)
    else:
        file.write_bytes(content)
    assert place.vbackup("list").code == 0  # and the configuration is written
    sites = ":".join(str(place.sites / name) for name in ("zebra", "wild", "old", "tame"))
    environment = {**os.environ, "PYTHONPATH": sites}
    environment.pop("PYDANTIC_DISABLE_PLUGINS", None)  # the command line, imported here, has set it here
    for command in ("list", "plugins"):
        done = subprocess.run([*VBACKUP, command], env=environment, capture_output=True, text=True, check=False)
        assert done.stderr.startswith(
            f"vbackup: warning: {file.parent} is left out, as its entry points cannot be read: {said}"
        )
        assert done.stderr.endswith(" (reinstall or remove it)\n")
        assert done.stderr.count("\n") == 1
        assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"wild", "tame", "zstd"} <= listed
    assert not {"old", "zebra"} & listed


@pytest.mark.parametrize("content", [b"Name: \xff\n", b"Version: 1\n", None], ids=["bytes", "no name", "not there"])
def test_a_plugin_whose_metadata_cannot_be_read_works_all_the_same(place: Place, content: bytes | None) -> None:
    place.install("wild", GOOD)
    file = place.sites / "wild" / "stranger_wild-1.2.dist-info" / "METADATA"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    outcome = place.vbackup("plugins", "wild")
    assert (outcome.code, outcome.err) == (0, "")
    assert "from         stranger_wild-1.2.dist-info " in outcome.out
