"""The session: who is trusted, what is said when it is refused, and that none is left behind."""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import AccessDenied, ConfigError, NotFound, Unavailable, VBackupError
from vbackup_vsphere import session as module
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.session import Session
from vbackup_vsphere.stub import Stub

from .frozen import Machine, session_with


def _seen(simulator: Simulator, algorithm: str) -> str:
    pem = ssl.get_server_certificate((simulator.host, simulator.port))
    digest = hashlib.new(algorithm, ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _refused(simulator: Simulator, **options: Any) -> VBackupError:
    with session_with(simulator, **options) as session, pytest.raises(VBackupError) as caught:
        _ = session.content
    return caught.value


def test_a_vcenter_is_told_from_a_host(vcsim: Simulator, make_vcsim: Any) -> None:
    with session_with(vcsim) as session:
        assert session.is_vcenter
    with session_with(make_vcsim(esx=True)) as session:
        assert not session.is_vcenter


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_a_thumbprint_is_as_good_as_a_ca(vcsim: Simulator, algorithm: str) -> None:
    thumbprint = _seen(vcsim, algorithm)
    with session_with(vcsim, ca=None, thumbprint=thumbprint) as session:
        assert session.is_vcenter
    with session_with(vcsim, ca=None, thumbprint=thumbprint.replace(":", "").lower()) as session:
        assert session.is_vcenter


def test_a_wrong_thumbprint_is_told_before_the_password_is_sent(vcsim: Simulator) -> None:
    error = _refused(vcsim, ca=None, thumbprint="AB" * 32)
    assert isinstance(error, AccessDenied)
    assert _seen(vcsim, "sha256") in error.message
    assert vcsim.calls().get("Login", 0) == 0


def test_every_connection_is_looked_at_for_the_thumbprint(vcsim: Simulator) -> None:
    with session_with(vcsim, ca=None, thumbprint=_seen(vcsim, "sha1")) as session:
        assert session.is_vcenter
        session._stub.drop()
        session._trust.pin = "00" * 20
        with pytest.raises(AccessDenied, match="thumbprint"):
            session.list(vim.VirtualMachine, "name")
        session._trust.pin = _seen(vcsim, "sha1").replace(":", "").lower()


def test_a_thumbprint_of_no_known_length_is_refused(vcsim: Simulator) -> None:
    with pytest.raises(ConfigError, match="42 hex digits"):
        Session(VsphereOptions.model_validate(vcsim.options(ca=None, thumbprint="AB" * 21)), "vc")


def test_a_ca_that_does_not_vouch_for_the_host(vcsim: Simulator, make_vcsim: Any) -> None:
    error = _refused(vcsim, ca=str(make_vcsim().ca))
    assert isinstance(error, AccessDenied)
    assert "is not trusted" in error.message
    assert "thumbprint" in error.hint
    assert vcsim.calls().get("Login", 0) == 0


def test_the_systems_cas_do_not_know_the_host(vcsim: Simulator) -> None:
    assert isinstance(_refused(vcsim, ca=None), AccessDenied)


def test_a_ca_file_that_is_not_there(vcsim: Simulator) -> None:
    assert isinstance(_refused(vcsim, ca="/nowhere/ca.pem"), NotFound)


def test_a_wrong_password_is_sent_once(vcsim: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "wrong"
    secret.write_text("not-the-password")
    secret.chmod(0o600)
    with caplog.at_level(logging.DEBUG), session_with(vcsim, password={"file": str(secret)}) as session:
        for _ in range(3):
            with pytest.raises(AccessDenied) as caught:
                _ = session.content
            assert "not-the-password" not in str(caught.value)
        assert vcsim.calls()["Login"] == 1
        secret.write_text(vcsim.password)  # it was put right
        assert session.is_vcenter
    assert "not-the-password" not in caplog.text
    assert vcsim.state()["sessions"] == 0


def test_a_host_that_is_not_there(vcsim: Simulator) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = _refused(vcsim, port=unused.getsockname()[1])
    assert isinstance(error, Unavailable)
    assert error.transient


def test_closing_logs_out_and_the_next_use_logs_in(vcsim: Simulator) -> None:
    with session_with(vcsim) as session:
        assert session.is_vcenter
        assert vcsim.state()["sessions"] == 1
        session.close()
        assert vcsim.state()["sessions"] == 0
        assert session.list(vim.VirtualMachine, "name")
        assert vcsim.state()["sessions"] == 1
    assert vcsim.state()["sessions"] == 0


def test_nothing_is_done_before_the_first_use(vcsim: Simulator) -> None:
    with session_with(vcsim):
        assert vcsim.calls() == {}


def test_a_failure_right_after_the_login_leaves_no_session(vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with session_with(vcsim) as session:
        monkeypatch.setattr(Stub, "adopt", _broken)
        with pytest.raises(Unavailable):
            _ = session.content
        assert vcsim.calls()["Login"] == 1
        assert vcsim.state()["sessions"] == 0


def _broken(*_: object) -> None:
    raise OSError("no more file descriptors")


def test_an_expired_session_is_made_anew(vcsim: Simulator) -> None:
    with session_with(vcsim) as session:
        machines = session.list(vim.VirtualMachine, "name")
        vcsim.expire_sessions()
        assert session.list(vim.VirtualMachine, "name") == machines
        vcsim.expire_sessions()
        path = "/folder/DC0_H0_VM0/DC0_H0_VM0.vmx?dcPath=DC0&dsName=LocalDS_0"
        with session.open("GET", path) as answer:
            assert answer.status == 200
        assert vcsim.calls()["Login"] == 3


def test_a_file_that_may_not_be_read_costs_no_session(vcsim: Simulator) -> None:
    vcsim.http_fault("/folder/", status=401, times=2)
    with session_with(vcsim) as session:
        with pytest.raises(AccessDenied, match=r"Datastore\.Browse"), session.open("GET", "/folder/x"):
            pass
        assert vcsim.calls()["Login"] == 1
        assert vcsim.state()["sessions"] == 1


def test_a_storm_of_threads_on_a_wrong_password_is_one_login(vcsim: Simulator) -> None:
    threads = 64
    with session_with(vcsim, user="nobody") as session:
        barrier, denied = threading.Barrier(threads), []

        def ask() -> None:
            barrier.wait()
            try:
                _ = session.content
            except AccessDenied as error:
                denied.append(error)

        workers = [threading.Thread(target=ask) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(denied) == threads
        assert vcsim.calls()["Login"] == 1


def test_a_storm_of_threads_is_one_login(vcsim: Simulator) -> None:
    threads = 64
    with session_with(vcsim) as session:
        ref = session.list(vim.VirtualMachine, "name")[0][0]
        vcsim.expire_sessions()
        barrier, names = threading.Barrier(threads), []

        def ask() -> None:
            barrier.wait()
            names.append(session.get(ref, "name")["name"])

        workers = [threading.Thread(target=ask) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(names) == threads
        assert vcsim.calls()["Login"] == 2
    assert vcsim.state()["sessions"] == 0


def test_the_session_is_kept_alive(vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEPALIVE", 0.01)
    with session_with(vcsim) as session:
        assert session.is_vcenter
        pause = threading.Event()
        while vcsim.calls().get("CurrentTime", 0) < 2:
            pause.wait(0.01)
    assert not [one for one in threading.enumerate() if one.name == "keepalive-vc" and not one.daemon]


def test_an_object_that_is_gone(vcsim: Simulator) -> None:
    with session_with(vcsim) as session, pytest.raises(NotFound):
        session.get(session.object(vim.VirtualMachine, "vm-4711"), "name")


def test_a_missing_privilege_is_named(vcsim: Simulator) -> None:
    vcsim.deny("VirtualMachine.State.CreateSnapshot")
    with session_with(vcsim) as session:
        vm = Machine.find(vcsim, session).vm
        with pytest.raises(AccessDenied) as caught:
            session.call("making it", lambda: vm.CreateSnapshot_Task("x", "", False, False))
        assert caught.value.message.startswith(
            "making it: the user lacks the privilege VirtualMachine.State.CreateSnap"
        )
        assert "DC0_H0_VM0" in caught.value.message


@pytest.mark.parametrize(("status", "kind"), [(403, AccessDenied), (404, NotFound), (503, Unavailable)])
def test_what_a_file_is_refused_with(vcsim: Simulator, status: int, kind: type[VBackupError]) -> None:
    vcsim.http_fault("/folder/", status=status)
    with session_with(vcsim) as session, pytest.raises(kind), session.open("GET", "/folder/x"):
        pass


def test_an_answer_that_is_cut_short(vcsim: Simulator) -> None:
    path = "/folder/DC0_H0_VM0/disk1.vmdk?dcPath=DC0&dsName=LocalDS_0"
    vcsim.http_fault("/folder/", cut_at=10)
    with session_with(vcsim) as session:
        with pytest.raises(Unavailable) as caught, session.open("GET", path) as answer:
            list(iter(lambda: answer.read(4), b""))
        assert caught.value.transient
        with session.open("GET", path) as answer:
            assert answer.read()
