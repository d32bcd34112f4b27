"""Who is let in, and what is sent so that nobody else can read or change it."""

from __future__ import annotations

import logging
import sys
import traceback

import pytest
from pydantic import ValidationError
from smbprotocol.exceptions import SMBResponseException
from smbprotocol.header import SMB2HeaderResponse
from smbprotocol.session import Session

from tests.servers.daemon import Daemons
from tests.servers.samba import Samba
from vbackup.api import AccessDenied, ConfigError, Level, Unavailable, Unsupported

WRONG = "staple horse wrong"


@pytest.fixture
def server():
    """Start servers with settings of their own."""
    with Daemons("samba") as daemons:
        yield lambda more: Samba(daemons, more)


def works(transport):
    transport.put("a", b"1")
    return transport.get("a") == b"1"


def test_a_wrong_password(smb, secret, caplog):
    """It is refused, and shown nowhere: neither in what is said nor in what is logged."""
    caplog.set_level(logging.DEBUG)
    secret.write_text(WRONG)
    transport = smb()
    with pytest.raises(AccessDenied, match="does not let root in: the server says logon failure") as caught:
        transport.get("a")
    assert "password" in caught.value.hint
    shown = [caplog.text, repr(transport), *traceback.format_exception(caught.value)]
    assert not [text for text in shown if WRONG in text]


def test_a_domain(smb):
    """It is part of who logs in; a server of its own does not know others."""
    assert works(smb(domain="WORKGROUP"))


def test_guests_are_nobody(smb, server, secret):
    """Who is let in without being known could be anybody, and so could the server."""
    secret.write_text(WRONG)
    with pytest.raises(AccessDenied, match="does not let stranger in"):
        smb("", server("map to guest = bad user"), user="stranger").get("a")


def test_a_share_that_is_not_for_us(smb):
    with pytest.raises(AccessDenied, match="keeps share closed from root") as caught:
        smb(share="closed").get("a")
    assert caught.value.hint


@pytest.mark.parametrize("settings", ["server smb encrypt = off", "server smb encrypt = required"])
def test_encryption(smb, server, settings):
    """It is never left out in silence: only whoever says so does without, and then all is signed."""
    samba = server(settings)
    assert works(smb("", samba, encrypt=False))
    if settings.endswith("off"):
        with pytest.raises(Unsupported, match="cannot encrypt") as caught:
            smb("", samba).get("a")
        assert "encrypt: false" in caught.value.hint
    else:
        assert works(smb("", samba))


def test_an_old_server(smb, server):
    with pytest.raises(Unsupported, match="knows no SMB 3"):
        smb("", server("server max protocol = SMB2_10"), encrypt=False).get("a")


def test_smb_3_0(smb, server):
    """The first with encryption."""
    assert works(smb("", server("server max protocol = SMB3_00")))


@pytest.mark.parametrize("path", ["/a", "a/", "a\\b", "a:b", "a//b", "a\n", "..", "a/../b", "."])
def test_paths_that_are_refused(options, path):
    with pytest.raises(ValidationError, match="path"):
        options(path)


def test_without_the_library(smb, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("smbprotocol", "vbackup_smb.login"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "smbprotocol", None)
    transport = smb()
    with pytest.raises(ConfigError, match="needs smbprotocol") as caught:
        transport.get("a")
    assert caught.value.hint == "pip install 'vbackup[smb]'"
    assert [(finding.level, finding.hint) for finding in transport.check()] == [(Level.ERROR, caught.value.hint)]


def test_a_password_that_is_no_text(smb, secret):
    """It is said without any of its bytes."""
    secret.write_bytes(b"se\xffcret")
    with pytest.raises(ConfigError, match="is not UTF-8") as caught:
        smb().get("a")
    assert not [text for text in traceback.format_exception(caught.value) if "xff" in text]


@pytest.mark.parametrize(
    ("status", "passes"),
    [
        (0xC000006D, False),  # LOGON_FAILURE
        (0xC0000234, False),  # ACCOUNT_LOCKED_OUT
        (0xC000005E, True),  # NO_LOGON_SERVERS
        (0xC00000D0, True),  # REQUEST_NOT_ACCEPTED
        (0xC0000205, True),  # INSUFF_SERVER_RESOURCES
    ],
)
def test_a_logon_that_fails(smb, monkeypatch, status, passes):
    """Only what a server says of us is refused for good."""

    def connect(_):
        header = SMB2HeaderResponse()
        header["status"] = status
        raise SMBResponseException(header)

    monkeypatch.setattr(Session, "connect", connect)
    with pytest.raises(Unavailable if passes else AccessDenied) as caught:
        smb().get("a")
    assert caught.value.transient == passes
    assert "127.0.0.1" in str(caught.value)
