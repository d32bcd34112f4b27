"""Who is let in, and whom we trust."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import traceback

import asyncssh
import pytest
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from tests.servers.daemon import Daemons
from tests.servers.sshd import PASSWORD, Sshd
from vbackup.api import AccessDenied, ConfigError, Level, SecretRef, Unavailable, Unsupported
from vbackup.testing.lab.libvirtd import until
from vbackup_sftp.loop import run

WRONG = "staple horse wrong"


def secret(tmp_path, text, name="secret"):
    file = tmp_path / name
    file.touch(mode=0o600)
    file.write_text(text)
    return SecretRef(file=file)


def new_key(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def works(transport):
    transport.put("a", b"1")
    return transport.get("a") == b"1"


def test_a_password(sftp, tmp_path):
    assert works(sftp(identity=None, password=secret(tmp_path, PASSWORD)))


def test_a_wrong_password(sftp, tmp_path, caplog):
    """It is refused, and shown nowhere: neither in what is said nor in what is logged."""
    caplog.set_level(logging.DEBUG)
    transport = sftp(identity=None, password=secret(tmp_path, WRONG))
    with pytest.raises(AccessDenied, match="does not let root in") as caught:
        transport.get("a")
    assert "password" in caught.value.hint
    shown = [caplog.text, repr(transport), *traceback.format_exception(caught.value)]
    assert not [text for text in shown if WRONG in text]


def test_a_key_with_a_passphrase(sftp, sshd, tmp_path):
    """That it is missing or wrong is said without it."""
    key = tmp_path / "key"
    plain = serialization.load_ssh_private_key(sshd.identity.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(PASSWORD.encode())
    key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    assert works(sftp(identity=key, passphrase=secret(tmp_path, PASSWORD)))
    for passphrase in (None, secret(tmp_path, WRONG, "wrong")):
        with pytest.raises(ConfigError, match="cannot use the private key") as caught:
            sftp(identity=key, passphrase=passphrase).get("a")
        assert WRONG not in str(caught.value)


def test_a_key_that_is_not_there(sftp, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the private key .*/nothing: No such file"):
        sftp(identity=tmp_path / "nothing").get("a")


def test_an_agent(sftp, sshd, tmp_path, monkeypatch):
    """Used when nothing else is given; without one it is said what is missing."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(ConfigError, match="nothing says how root logs in"):
        sftp(identity=None).get("a")
    with Daemons("agent") as daemons:
        socket = daemons.root / "socket"
        daemons.spawn("ssh-agent", "-D", "-a", socket)
        until(socket.exists, "ssh-agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(sshd.identity)], check=True)
        assert works(sftp(identity=None))


@pytest.mark.parametrize("known", ["no file", "empty", "others"])
def test_a_host_that_is_not_known(sftp, tmp_path, known):
    """It is never taken on trust, and it is said how to add it; nothing is added."""
    file = tmp_path / "known_hosts"
    if known != "no file":
        file.write_text("" if known == "empty" else f"elsewhere {new_key(tmp_path / 'other')}\n")
    before = file.read_text() if file.exists() else None
    transport = sftp(known_hosts=file)
    with pytest.raises(AccessDenied, match="is not known") as caught:
        transport.put("a", b"1")
    assert f"ssh-keyscan -p {transport_port(caught.value)} 127.0.0.1 >> {file}" in caught.value.hint
    assert before == (file.read_text() if file.exists() else None)
    assert [finding.level for finding in transport.check()] == [Level.ERROR]


def transport_port(error):
    return error.message.split("127.0.0.1:")[1].split()[0]


def test_a_host_that_shows_another_key(sftp, sshd, tmp_path):
    file = tmp_path / "known_hosts"
    file.write_text(f"[127.0.0.1]:{sshd.port} {new_key(tmp_path / 'other')}\n")
    with pytest.raises(AccessDenied, match="shows another host key than the one that is trusted"):
        sftp(known_hosts=file).get("a")


def test_a_pinned_host_key(sftp, sshd, tmp_path):
    """It alone counts: not what is in the file."""
    assert works(sftp(host_key=sshd.host_key, known_hosts=tmp_path / "nothing"))
    with pytest.raises(AccessDenied, match="shows another host key"):
        sftp(host_key=new_key(tmp_path / "other")).get("a")
    with pytest.raises(ConfigError, match=r"cannot use the host keys of 127\.0\.0\.1"):
        sftp(host_key="ssh-ed25519 AAAA").get("a")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"path": "store"}, "absolute"),
        ({"password": {"env": "X"}}, "not both"),
        ({"identity": None, "passphrase": {"env": "X"}}, "missing"),
        ({"host_key": "AAAA"}, "pattern"),
        ({"timeout": 0}, "greater"),
    ],
)
def test_options_that_are_refused(options, change, says):
    with pytest.raises(ValidationError, match=says):
        options(**change)


def test_without_the_library(sftp, monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    transport = sftp()
    with pytest.raises(ConfigError, match="needs asyncssh") as caught:
        transport.get("a")
    assert caught.value.hint == "pip install 'vbackup[sftp]'"
    assert [(finding.level, finding.hint) for finding in transport.check()] == [(Level.ERROR, caught.value.hint)]


@pytest.mark.parametrize("lacking", ["fsync", "posix-rename", "hardlink"])
def test_a_server_that_lacks_an_extension(root, sftp, lacking):
    """Nothing is put that might not last, and nothing is left."""
    with Daemons("sshd") as daemons, pytest.raises(Unsupported, match="lacks what vbackup needs") as caught:
        sftp(root, Sshd(daemons, f"internal-sftp -P {lacking}")).put("a", b"1", if_absent=lacking == "hardlink")
    assert "OpenSSH" in str(caught.value)
    assert not list(root.iterdir())


def test_a_server_without_sftp(root, sftp):
    with Daemons("sshd") as daemons, pytest.raises(Unsupported, match="offers no SFTP"):
        sftp(root, Sshd(daemons, "")).get("a")


def test_only_the_agents_keys(sftp, sshd, tmp_path, monkeypatch):
    """Never those of ~/.ssh, be the agent gone, or without a key, or with another one."""
    (tmp_path / ".ssh").mkdir()
    shutil.copy(sshd.identity, tmp_path / ".ssh/id_ed25519")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"ssh-agent at .*/nothing does not answer"):
        sftp(identity=None).get("a")
    with Daemons("agent") as daemons:
        socket = daemons.root / "socket"
        daemons.spawn("ssh-agent", "-D", "-a", socket)
        until(socket.exists, "ssh-agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        with pytest.raises(ConfigError, match="has no key for root"):
            sftp(identity=None).get("a")
        new_key(tmp_path / "other")
        subprocess.run(["ssh-add", "-q", str(tmp_path / "other")], check=True)
        with pytest.raises(AccessDenied, match="does not let root in"):
            sftp(identity=None).get("a")


def test_no_authority_of_the_user_is_trusted(sftp, tmp_path, monkeypatch):
    """What asyncssh would read besides `known_hosts` is not even opened: here it could not be read."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/ca-bundle.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert works(sftp())


def test_a_password_that_is_no_text(sftp, tmp_path):
    """It is said without any of its bytes."""
    (tmp_path / "secret").write_bytes(b"se\xffcret")
    with pytest.raises(ConfigError, match="is not UTF-8") as caught:
        sftp(identity=None, password=SecretRef(file=tmp_path / "secret")).get("a")
    assert not [text for text in traceback.format_exception(caught.value) if "xff" in text]


class Refusing(asyncssh.SSHServer):
    """Lets everybody in; opens no channel, for a reason, or without one hangs up."""

    def __init__(self, reason):
        self.reason = reason

    def connection_made(self, conn):
        self.connection = conn

    def begin_auth(self, username):
        return False

    def session_requested(self):
        if self.reason is None:
            self.connection.abort()
            return False
        raise asyncssh.ChannelOpenError(self.reason, "no")


@pytest.mark.parametrize(
    ("reason", "passes"),
    [
        (asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, False),
        (asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE, False),
        (asyncssh.OPEN_CONNECT_FAILED, True),
        (asyncssh.OPEN_RESOURCE_SHORTAGE, True),
        (None, True),
    ],
)
def test_a_server_that_opens_no_channel(sftp, sshd, reason, passes):
    """That it does not want to stays so; that it cannot may pass."""

    async def start():
        return await asyncssh.create_server(
            lambda: Refusing(reason), "127.0.0.1", 0, server_host_keys=[str(sshd.root / "host")]
        )

    server = run(start())
    try:
        with pytest.raises(Unavailable if passes else Unsupported) as caught:
            sftp(port=server.get_port(), known_hosts=None, host_key=sshd.host_key).get("a")
        assert caught.value.transient == passes
    finally:
        run(stop(server))


async def stop(server):
    server.close()
    await server.wait_closed()
