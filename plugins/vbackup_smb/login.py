"""Connecting to a share: who we are, and that nobody listens or changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smbprotocol import Dialects
from smbprotocol.exceptions import SMBException, SMBResponseException
from smbprotocol.session import Session as Login
from smbprotocol.tree import TreeConnect

from vbackup.api import AccessDenied, ConfigError, SecretRef, Unavailable, Unsupported
from vbackup_smb.connection import LimitedConnection
from vbackup_smb.failures import LOST, as_os_error, said
from vbackup_smb.session import Session

if TYPE_CHECKING:
    from vbackup_smb.transport import SmbOptions

_NO_SHARE = 0xC00000CC  # BAD_NETWORK_NAME
_DENIED = 0xC0000022  # ACCESS_DENIED
_REFUSED = {
    _DENIED,
    0xC0000061,  # PRIVILEGE_NOT_HELD
    0xC0000062,  # INVALID_ACCOUNT_NAME
    0xC0000064,  # NO_SUCH_USER
    0xC000006A,  # WRONG_PASSWORD
    0xC000006B,  # ILL_FORMED_PASSWORD
    0xC000006C,  # PASSWORD_RESTRICTION
    0xC000006D,  # LOGON_FAILURE
    0xC000006E,  # ACCOUNT_RESTRICTION
    0xC000006F,  # INVALID_LOGON_HOURS
    0xC0000070,  # INVALID_WORKSTATION
    0xC0000071,  # PASSWORD_EXPIRED
    0xC0000072,  # ACCOUNT_DISABLED
    0xC00000CA,  # NETWORK_ACCESS_DENIED
    0xC0000155,  # LOGON_NOT_GRANTED
    0xC000015B,  # LOGON_TYPE_NOT_GRANTED
    0xC0000193,  # ACCOUNT_EXPIRED
    0xC0000224,  # PASSWORD_MUST_CHANGE
    0xC0000234,  # ACCOUNT_LOCKED_OUT
    0xC0000413,  # AUTHENTICATION_FIREWALL_FAILED
    0xC0000418,  # NTLM_BLOCKED
}
"""What a server says of who we are; whatever else it says of a logon is said of itself, and may pass."""


def connect(options: SmbOptions) -> Session:
    """Log in to the share.

    Raises: `OSError` if the server cannot be reached; `AccessDenied`, `Unavailable` (no such share), `Unsupported`.
    """
    server = f"the SMB server {options.server}:{options.port}"
    connection = LimitedConnection(options.server, options.port, options.timeout)
    try:
        try:
            with as_os_error():
                connection.connect()
        except OSError as error:
            raise OSError(error.errno, f"there is no connection to {server}: {error.strerror}") from error
        _need_safety(connection, options, server)
        login = _log_in(connection, options, server)
        return Session(connection, login, _tree(login, options, server), options.path)
    except BaseException:
        connection.disconnect(close=False)
        raise


def _need_safety(connection: LimitedConnection, options: SmbOptions, server: str) -> None:
    if connection.dialect < Dialects.SMB_3_0_0:
        raise Unsupported(f"{server} knows no SMB 3", hint="let it: SMB 2 can neither be encrypted nor trusted")
    if options.encrypt and not connection.supports_encryption:
        raise Unsupported(f"{server} cannot encrypt", hint="let it, or set `encrypt: false`: then it is signed only")


def _log_in(connection: LimitedConnection, options: SmbOptions, server: str) -> Login:
    user = f"{options.domain}\\{options.user}" if options.domain else options.user
    password = _password(options.password)
    login = Login(connection, user, password, require_encryption=options.encrypt)
    denied = f"{server} does not let {user} in"
    try:
        with as_os_error():
            login.connect()
    except OSError as error:
        cause = error.__cause__
        if isinstance(cause, SMBResponseException) and cause.status in _REFUSED:
            raise AccessDenied(f"{denied}: {said(cause)}", hint="check `user`, `domain` and `password`") from None
        if isinstance(cause, SMBResponseException):
            raise OSError(error.errno, f"{server} cannot log {user} in: {error.strerror}") from cause
        if isinstance(cause, SMBException) and error.errno in LOST and connection.transport.connected:
            raise AccessDenied(f"{denied}: {cause}", hint="guests are not enough") from None
        raise
    return login


def _password(secret: SecretRef) -> str:
    try:
        return secret.resolve().decode()
    except UnicodeDecodeError:
        raise ConfigError(f"the password from {secret} is not UTF-8") from None


def _tree(login: Login, options: SmbOptions, server: str) -> TreeConnect:
    tree = TreeConnect(login, rf"\\{options.server}\{options.share}")
    try:
        with as_os_error():
            tree.connect()
    except OSError as error:
        cause = error.__cause__
        status = cause.status if isinstance(cause, SMBResponseException) else None
        if status == _NO_SHARE:
            hint = "is `share` spelled as on the server?"
            raise Unavailable(f"{server} has no share {options.share}", hint=hint, transient=False) from error
        if status == _DENIED:
            hint = "let this user use the share"
            raise AccessDenied(f"{server} keeps share {options.share} from {options.user}", hint=hint) from error
        raise
    return tree
