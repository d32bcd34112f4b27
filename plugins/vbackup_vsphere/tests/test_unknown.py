"""What cannot be read is not taken for what is not there; and answers that are none, or no answer to the question."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import SoapAdapter, vim, vmodl

from tests.vcsim.simulator import Simulator
from vbackup.api import AccessDenied, CaptureRequest, Quiesce, Unavailable, VBackupError
from vbackup_vsphere import labels, snapshot
from vbackup_vsphere.session import Session
from vbackup_vsphere.stub import Stub
from vbackup_vsphere.web import Web

from .captures import MACHINE, OWNER, Site, Sites
from .frozen import session_with

_REQUEST = CaptureRequest(OWNER, quiesce=Quiesce.NO)
Missing = vmodl.query.PropertyCollector.MissingProperty


def _journaled(site: Site) -> int:
    return len(list(site.vsphere.site.captures.dead()))


def _assert_swept(site: Site) -> None:
    """The snapshot stayed, and so did the journal by which a sweep finds it."""
    assert len(site.snapshots()) == 1
    assert _journaled(site) == 1
    assert len(site.vsphere.sweep(OWNER)) == 1
    assert site.snapshots() == []
    assert _journaled(site) == 0


def _changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Change what the host says of objects."""
    invoke = Stub.InvokeMethod

    def changing(self: Stub, *args: Any) -> Any:
        answer = invoke(self, *args)
        for found in getattr(answer, "objects", None) or ():
            change(found)
        return answer

    monkeypatch.setattr(Stub, "InvokeMethod", changing)


def _unset(found: Any) -> None:
    found.propSet = [one for one in found.propSet if one.name != "snapshot" and not one.name.startswith("config.")]


def _denied(found: Any) -> None:
    if any(one.name == "snapshot" for one in found.propSet):
        found.propSet = [one for one in found.propSet if one.name != "snapshot"]
        found.missingSet = [Missing(path="snapshot", fault=vim.fault.NoPermission(privilegeId="System.Read"))]


@pytest.mark.parametrize("change", [_unset, _denied], ids=["inaccessible", "not permitted"])
def test_snapshots_that_cannot_be_seen(
    site: Site, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(VBackupError), site.vsphere.capture(MACHINE, _REQUEST):
        _changed(patch, change)
    _assert_swept(site)


def test_a_machine_whose_host_is_away(site: Site, vcsim: Simulator) -> None:
    with pytest.raises(VBackupError, match="disconnected"), site.vsphere.capture(MACHINE, _REQUEST):
        vcsim.set(MACHINE, runtime__connectionState="disconnected")
    assert _journaled(site) == 1
    assert "could not remove" in site.vsphere.sweep(OWNER)[0]
    vcsim.set(MACHINE, runtime__connectionState="connected")
    _assert_swept(site)


def _page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer all calls with a page of a proxy that says 200."""
    read = SoapAdapter.SoapResponseDeserializer.Deserialize

    def page(self: Any, response: Any, *more: Any) -> Any:
        response.read()
        return read(self, io.BytesIO(b"<html><body>back soon</body></html>"), *more)

    monkeypatch.setattr(SoapAdapter.SoapResponseDeserializer, "Deserialize", page)


def test_a_page_while_a_snapshot_is_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Unavailable), site.vsphere.capture(MACHINE, _REQUEST):
        _page(patch)
    _assert_swept(site)


@pytest.mark.parametrize(
    "ask",
    [
        lambda session: session.list(vim.VirtualMachine, "name"),
        lambda session: session.get(session.content.rootFolder, "name"),
        lambda session: session.now(),
        lambda session: session.wait(None, "test"),
    ],
    ids=["list", "get", "now", "wait"],
)
def test_a_page_for_an_answer(
    vcsim: Simulator, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Session], object]
) -> None:
    with session_with(vcsim) as session:
        _ = session.content
        with monkeypatch.context() as patch:
            _page(patch)
            with pytest.raises(Unavailable):
                ask(session)


def test_a_page_for_a_login(vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with session_with(vcsim) as session, monkeypatch.context() as patch:
        _page(patch)
        with pytest.raises(Unavailable):
            _ = session.content


def test_nothing_in_the_inventory_is_an_answer(vcsim: Simulator) -> None:
    with session_with(vcsim) as session:
        assert session.list(vim.VirtualApp, "name") == []


def test_a_property_that_is_absent(vcsim: Simulator) -> None:
    with session_with(vcsim) as session:
        row = session.get(session.content.rootFolder, "parent")
        assert row.get("parent") is None
        with pytest.raises(Unavailable, match="parent cannot be read"):
            row["parent"]


def _interrupt(site: Site, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be interrupted while the snapshot is being made."""
    wait = Session.wait

    def interrupted(self: Session, task: Any, what: str) -> Any:
        if what.startswith("making a snapshot"):
            raise KeyboardInterrupt
        return wait(self, task, what)

    vcsim.hold_task("CreateSnapshot_Task")
    monkeypatch.setattr(Session, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        site.capture()


def test_a_snapshot_is_finished_just_before_its_task_is_looked_for(
    site: Site, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    creating = snapshot._creating

    def late(session: Session, vm: Any) -> list[Any]:
        vcsim.release_tasks()
        for task in creating(session, vm):
            session.wait(task, "test")
        return creating(session, vm)

    monkeypatch.setattr(snapshot, "_creating", late)
    _interrupt(site, vcsim, monkeypatch)
    assert site.snapshots() == []
    assert _journaled(site) == 0


def test_tasks_that_cannot_be_read(site: Site, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise Unavailable("503")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "read_from", unreadable)
        _interrupt(site, vcsim, patch)
    vcsim.release_tasks()
    assert _journaled(site) == 1
    assert len(site.vsphere.sweep(OWNER)) == 1
    assert site.snapshots() == []


@pytest.mark.parametrize("answer", [b'[{"object_id": {"id": "vm-1"}}]', b"[1]", b'{"a": 1}', b"", b"<html>", b"\xff"])
def test_tags_that_are_none(make_site: Sites, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    site = make_site()
    send = labels._Rest._send

    def odd(self: Any, method: str, path: str, *more: Any) -> bytes:
        return answer if "tag-association" in path else send(self, method, path, *more)

    monkeypatch.setattr(labels._Rest, "_send", odd)
    with pytest.raises(Unavailable, match="what we do not understand"):
        site.vsphere.machines()


def test_a_password_that_was_refused_is_not_sent_again(make_site: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site()
    send, logins = Web.send, []

    def refusing(self: Web, peer: Any, method: str, path: str, *more: Any) -> Any:
        connection, response = send(self, peer, method, path, *more)
        if method == "POST" and path.endswith("/session"):
            logins.append(path)
            response.status = 401
        return connection, response

    monkeypatch.setattr(Web, "send", refusing)
    for _ in range(3):
        with pytest.raises(AccessDenied):
            site.vsphere.machines()
    assert len(logins) == 1
