"""Files beside the disks, and the memory: what the host sends instead of them is not taken for them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import CaptureLost, Unavailable
from vbackup_vsphere import folder, web
from vbackup_vsphere.readers import datastore
from vbackup_vsphere.session import Session

from .captures import MIB, Site, Sites


def _answering(monkeypatch: pytest.MonkeyPatch, part: str, status: int) -> None:
    """Let requests for paths with ``part`` be answered with another status, and a page."""
    send = web.Web.send

    def other(self: web.Web, peer: web.Peer, method: str, path: str, headers: Any, body: web.Body) -> Any:
        connection, response = send(self, peer, method, path, headers, body)
        if part in path:
            response.status = status
        return connection, response

    monkeypatch.setattr(web.Web, "send", other)


@pytest.mark.parametrize("status", [302, 206, 204])
def test_another_page_is_not_taken_for_the_firmware_variables(
    make_site: Sites, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    vcsim.add_vm("efi", firmware="efi", disks=[MIB])
    vcsim.nvram("efi").write_bytes(b"N" * 1000)
    site = make_site(name="efi", read=["datastore"])
    assert site.capture().files == {"nvram": b"N" * 1000}
    _answering(monkeypatch, ".nvram", status)
    copy = site.capture()
    assert copy.files == {}
    assert any("firmware variables are not captured" in note and f" {status} " in note for note in copy.notes)


def test_a_file_of_another_length_is_not_taken(site: Site) -> None:
    vmx = site.get("config.files.vmPathName")
    session = site.vsphere.site.session
    content = folder.fetch(session, "DC0", vmx, None)
    assert folder.fetch(session, "DC0", vmx, len(content)) == folder.fetch(session, "DC0", vmx, -1) == content
    with pytest.raises(Unavailable, match="bytes came instead of"):
        folder.fetch(session, "DC0", vmx, len(content) + 1)


def test_another_range_is_not_taken_for_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Session.open

    def shifted(self: Session, method: str, url: str, *, headers: Any = None, **more: Any) -> Any:
        if headers and "Range" in headers and ".vmem" in url:
            headers = {"Range": "bytes=4096-8191"}
        return opened(self, method, url, headers=headers, **more)

    monkeypatch.setattr(Session, "open", shifted)
    with pytest.raises(CaptureLost, match="the memory of web: asked for bytes"):
        site.capture(memory=True, with_memory=lambda _: None)
    assert site.snapshots() == []


def test_memory_is_read_on_after_a_cut(site: Site, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datastore, "PAUSE", 0.01)
    content = random.Random(3).randbytes(MIB)
    vcsim.memory(site.name, content)
    captured: list[bytes] = []

    def cut() -> None:
        vcsim.http_fault("/folder", method="GET", cut_at=70_000)

    site.capture(memory=True, meanwhile=cut, with_memory=captured.append)
    assert captured[0].startswith(content)


@pytest.mark.parametrize("told", ["many", "0", "4096"])
def test_memory_of_unknown_length(site: Site, vcsim: Simulator, told: str) -> None:
    vcsim.http_fault("/folder", method="HEAD", skip=1, times=9, headers={"Content-Length": told})
    captured: list[bytes] = []
    copy = site.capture(memory=True, with_memory=captured.append)
    assert captured == []
    assert "vmsn" not in copy.files
    assert any("the memory is not captured" in note for note in copy.notes)
