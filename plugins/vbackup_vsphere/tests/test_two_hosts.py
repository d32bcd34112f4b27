"""Two hosts, of two repositories, capture one machine at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import Capture, CaptureLost, CaptureRequest, Quiesce
from vbackup_vsphere.readers import nfc

from .captures import MACHINE, MIB, OTHER_OWNER, OWNER, Site, Sites, connect, copy_all


@contextmanager
def _two(site: Site, directory: Path, **options: Any) -> Iterator[tuple[ExitStack, Capture, bytes, Capture, bytes]]:
    """Give what ends the first capture, it, its bytes, the second one, which was begun later, and its bytes."""
    site.track()
    site.write(0, b"x" * 9000)
    other = connect(site.simulator, directory, **options)
    with ExitStack() as stack, ExitStack() as ending:
        stack.callback(other.close)
        first = ending.enter_context(site.vsphere.capture(MACHINE, CaptureRequest(OWNER, quiesce=Quiesce.NO)))
        then = site.content()
        site.write(MIB, b"y" * 9000)
        request = CaptureRequest(OTHER_OWNER, quiesce=Quiesce.NO)
        second = stack.enter_context(other.capture(MACHINE, request))
        now = site.content()
        site.write(2 * MIB, b"z" * 9000)
        yield ending, first, then, second, now


@pytest.mark.parametrize("read", ["vddk", "nfc"])  # what the second one reads is a chain: no other way can
def test_the_first_ends_last(make_site: Sites, vcsim: Simulator, tmp_path: Path, read: str) -> None:
    options = {"read": [read], "vddk": vcsim.vddk()}
    site = make_site(**options)
    with _two(site, tmp_path / "other", **options) as (_, first, then, second, now):
        assert list(copy_all(second).disks.values()) == [now]
        assert list(copy_all(first).disks.values()) == [then]
    assert site.snapshots() == []


def test_the_layer_that_is_read_is_merged(make_site: Sites, vcsim: Simulator, tmp_path: Path) -> None:
    """Removing the first one's snapshot merges what the second one reads into the layer below. VDDK has it open."""
    options = {"read": ["vddk"], "vddk": vcsim.vddk()}
    site = make_site(**options)
    with _two(site, tmp_path / "other", **options) as (ending, _, _, second, now):
        ending.close()
        assert list(copy_all(second).disks.values()) == [now]
    assert site.snapshots() == []


def test_an_export_does_not_survive_that(
    make_site: Sites, vcsim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nfc, "PAUSE", 0.01)
    site = make_site(read=["nfc"])
    with _two(site, tmp_path / "other", read=["nfc"]) as (ending, _, _, second, _):
        ending.close()
        with pytest.raises(CaptureLost, match="the snapshot below that of web was removed") as caught:
            copy_all(second)
    assert caught.value.transient
    assert site.snapshots() == []
