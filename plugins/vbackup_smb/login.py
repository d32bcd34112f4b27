"""Connecting to a share: who we are, and that nobody listens or changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smbprotocol import Dialects
from smbprotocol.exceptions import SMBException, SMBResponseException
from smbprotocol.session import Session as Login
from smbprotocol.tree import TreeConnect

from vbackup.api import AccessDenied, Unavailable, Unsupported
from vbackup_smb.connection import LimitedConnection
from vbackup_smb.failures import LOST, as_os_error, said
from vbackup_smb.session import Session

if TYPE_CHECKING:
    from vbackup_smb.transport import SmbOptions

_NO_SHARE = 0xC00000CC  # BAD_NETWORK_NAME
_DENIED = 0xC0000022  # ACCESS_DENIED


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
    password = options.password.resolve().decode()
    login = Login(connection, user, password, require_encryption=options.encrypt)
    denied = f"{server} does not let {user} in"
    try:
        with as_os_error():
            login.connect()
    except OSError as error:
        cause = error.__cause__
        if isinstance(cause, SMBResponseException):
            raise AccessDenied(f"{denied}: {said(cause)}", hint="check `user`, `domain` and `password`") from None
        if isinstance(cause, SMBException) and error.errno in LOST and connection.transport.connected:
            raise AccessDenied(f"{denied}: {cause}", hint="guests are not enough") from None
        raise
    return login


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
