"""Plugins that were made for another API version than this vbackup has."""

from __future__ import annotations

import pytest

from tests.hostile.conftest import Place
from tests.hostile.test_loading import GOOD
from vbackup import __version__
from vbackup.registry import Registry, versions

THIS = f"this is 1, of vbackup {__version__}"
VERSIONS = {
    "2": f"it was made for API version 2; {THIS}: update vbackup, or install an older version of the plugin",
    "99": f"it was made for API version 99; {THIS}: update vbackup",
    "0": "its VBACKUP_API_VERSION must be a whole number from 1 on, not 0",
    "-1": "its VBACKUP_API_VERSION must be a whole number from 1 on, not -1",
    "True": "its VBACKUP_API_VERSION must be a whole number from 1 on, not True",
    "1.0": "its VBACKUP_API_VERSION must be a whole number from 1 on, not 1.0",
    "'1'": "its VBACKUP_API_VERSION must be a whole number from 1 on, not '1'",
    "None": "its VBACKUP_API_VERSION must be a whole number from 1 on, not None",
    "'x' * 10000": "not '" + "x" * 79 + "...",
}


@pytest.mark.parametrize(("version", "said"), VERSIONS.items(), ids=[name[:8] for name in VERSIONS])
def test_a_plugin_for_another_api_says_which_vbackup_it_needs(place: Place, version: str, said: str) -> None:
    place.install("wild", f"VBACKUP_API_VERSION = {version}\n{GOOD}")
    assert said in place.vbackup("plugins").err


@pytest.mark.parametrize("line", ["VBACKUP_API_VERSION = 1\n", ""])
def test_a_plugin_for_this_api_or_that_says_nothing_is_taken(place: Place, line: str) -> None:
    place.install("wild", line + GOOD)
    assert Registry.load().codecs["wild"].__name__ == "Wild"


def test_a_plugin_for_an_api_of_the_past_names_the_last_vbackup_that_has_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "API_VERSION", 3)
    monkeypatch.setattr(versions, "LAST_WITH", {2: "1.9"})
    place.install("wild", f"VBACKUP_API_VERSION = 2\n{GOOD}")
    place.install("older", f"VBACKUP_API_VERSION = 1\n{GOOD}")
    err = place.vbackup("plugins").err
    here = f"this is 3, of vbackup {__version__}: update the plugin"
    assert f"it was made for API version 2; {here}, or install vbackup 1.9, the last with that API\n" in err
    assert f"it was made for API version 1; {here}\n" in err


def test_each_version_of_the_past_has_a_last_vbackup() -> None:
    assert sorted(versions.LAST_WITH) == list(range(1, versions.API_VERSION))


TELEPATHY = "ImportError: cannot import name 'Telepathy' from 'vbackup.api' "
OTHER = f"; this is API version 1, of vbackup {__version__}: the plugin may be made for another"
LACKING = {
    "states it below": ("from vbackup.api import Telepathy\nVBACKUP_API_VERSION = 2", TELEPATHY, f"; {VERSIONS['2']}"),
    "states it with a type": (
        "import vbackup.api\nvbackup.api.Telepathy\nVBACKUP_API_VERSION: int = 2",
        "AttributeError: module 'vbackup.api' has no attribute 'Telepathy'", f"; {VERSIONS['2']}",
    ),
    "states this one": ("from vbackup.api import Telepathy\nVBACKUP_API_VERSION = 1", TELEPATHY, OTHER),
    "states nothing": (
        "from vbackup.api.telepathy import Mind", "ModuleNotFoundError: No module named 'vbackup.api.telepathy'", OTHER
    ),
    "computes it": ("from vbackup.api import Telepathy\nVBACKUP_API_VERSION = 1 + 1", TELEPATHY, OTHER),
    "lacks something else": ("import telepathy", "ModuleNotFoundError: No module named 'telepathy'", "\n"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "said", "added"), LACKING.values(), ids=LACKING)
def test_a_plugin_that_asks_the_api_for_what_it_has_not_is_told_the_versions(
    place: Place, source: str, said: str, added: str
) -> None:
    """It fails in its first line, before anybody could look at its version."""
    place.install("wild", source)
    err = place.vbackup("list").err
    assert f"stranger_wild cannot be imported: {said}" in err
    assert added in err
    assert (OTHER in err, "made for API" in err) == (added == OTHER, "2;" in added)
