"""Logging in to a vCenter or an ESXi host."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pyVmomi import vim, vmodl

from vbackup.api import AccessDenied, ConfigError, Unavailable, VBackupError
from vbackup_vsphere.faults import TRANSPORT, translate
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.properties import given, moid, read_one
from vbackup_vsphere.stub import LoginStub, Stub, best_version
from vbackup_vsphere.trust import Trust
from vbackup_vsphere.web import Answer, Web

_VERSIONS = "/sdk/vimServiceVersions.xml"


class Unauthorized(AccessDenied):
    """The host does not take the credentials that it was sent (HTTP status 401)."""


class Refused:
    """The password that was refused: it is not sent again, for vCenter locks accounts."""

    def __init__(self) -> None:
        self._known: tuple[bytes, AccessDenied] | None = None

    def check(self, password: bytes) -> None:
        """Raises: `AccessDenied`, the remembered one, when it is this password."""
        if self._known is not None and self._known[0] == password:
            raise AccessDenied(self._known[1].message, hint=self._known[1].hint)

    def remember(self, password: bytes, error: AccessDenied) -> None:
        """Never send this password again."""
        self._known = (password, error)


class Login:
    """Logs in with the options' user. A password that was refused is not sent again: vCenter locks accounts.

    Used by one thread at a time.
    """

    def __init__(self, options: VsphereOptions, alias: str, trust: Trust, web: Web) -> None:
        self.certificate = b""
        """The host's, DER, once connected."""
        self._options = options
        self._alias = alias
        self._trust = trust
        self._web = web
        self._version = ""
        self._refused = Refused()

    def stub(self) -> Stub:
        """Return a stub without a session, of the newest API version that both sides know. Raises: `Unavailable`."""
        self._version = self._version or self._ask_version()
        return Stub(self._options.host, self._options.port, self._trust, self._version)

    def log_in(self, stub: Stub) -> Any:
        """Give ``stub`` a new session and return the `vim.ServiceInstanceContent`.

        Raises: `AccessDenied`, `Unavailable`, what resolving the password raises. No session is left then.
        """
        what = f"{self._alias}: logging in to {self._options.host} as {self._options.user}"
        password = self._options.password.resolve()
        self._refused.check(password)
        try:
            text = password.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{what}: the password is no UTF-8 text") from None
        login = LoginStub(self._options.host, self._options.port, self._trust, self._version)
        try:
            return self._log_in(login, text, stub)
        except vim.fault.InvalidLogin as error:
            denied = AccessDenied(
                translate(what, error, moid).message, hint="is `user` like administrator@vsphere.local?"
            )
            self._refused.remember(password, denied)
            raise denied from error
        except (vmodl.MethodFault, *TRANSPORT) as error:
            raise translate(what, error, moid) from error
        finally:
            login.drop()

    def _log_in(self, login: LoginStub, password: str, stub: Stub) -> Any:
        manager = given(vim.ServiceInstance("ServiceInstance", login).RetrieveContent(), "its content").sessionManager
        if manager is None:
            raise Unavailable(f"{self._alias}: {self._options.host} has no sessions", transient=False)
        try:
            manager.Login(self._options.user, password, None)
            stub.adopt(login.cookie)
            return given(vim.ServiceInstance("ServiceInstance", stub).RetrieveContent(), "its content")
        except BaseException:
            log_out(manager)
            raise

    def _ask_version(self) -> str:
        peer = (self._options.host, self._options.port, None)
        what = f"{self._alias}: asking {self._options.host} for its version"
        connection, response = self._web.send(peer, "GET", _VERSIONS, {}, None)
        try:
            self.certificate = connection.certificate
            offered, status = Answer(response, what).read(), response.status
        finally:
            self._web.give_back(peer, connection, response)
        version = best_version(offered)
        if version is None:
            said = f"GET {_VERSIONS} says {status}" if status != 200 else "it offers no version of the API that we know"
            raise Unavailable(f"{what}: it is no vCenter and no ESXi host: {said}", transient=status >= 500)
        return version


def has_ended(content: Any) -> bool:
    """Whether the host does not know the session of a `vim.ServiceInstanceContent` any more."""
    try:
        return read_one(content, content.sessionManager, ["currentSession"]).get("currentSession") is None
    except vim.fault.NotAuthenticated:
        return True
    except (VBackupError, vmodl.MethodFault, *TRANSPORT):
        return False


def log_out(manager: Any) -> None:
    """End the session of a `vim.SessionManager`, if there is one."""
    with suppress(vmodl.MethodFault, VBackupError, *TRANSPORT):
        manager.Logout()
