"""pyvmomi's SOAP stub on connections and a session that we vouch for."""

from __future__ import annotations

import re
from typing import Any

from pyVmomi.SoapAdapter import SoapStubAdapter
from pyVmomi.VmomiSupport import GetServiceVersions, versionIdMap

from vbackup_vsphere.trust import Trust, TrustedConnection

_IDLE_SECONDS = 60  # below what vCenter's proxy keeps an idle connection for
_CONNECTIONS = 32


class Stub(SoapStubAdapter):
    """A pool of connections with one session cookie, for all threads.

    One stub and not one for each thread: all managed objects keep working after a new login, 64 captures make one
    session in vCenter, and the pool gives each call a connection of its own. ``cookie`` changes only by `adopt`:
    pyvmomi takes whatever an answer brings, and a late answer to another thread would replace the new session by
    none.
    """

    def __init__(self, host: str, port: int, trust: Trust, version: str) -> None:
        self._cookie = ""
        self._trust = trust
        self._peer = (host, port)
        super().__init__(  # type: ignore[no-untyped-call]
            host=host, port=port, version=version, poolSize=_CONNECTIONS, connectionPoolTimeout=_IDLE_SECONDS
        )

    @property
    def cookie(self) -> str:
        """The session's cookie as it is sent."""
        return self._cookie

    @cookie.setter
    def cookie(self, value: str) -> None:
        pass

    def adopt(self, cookie: str) -> None:
        """Go on with this session."""
        self._cookie = cookie

    def drop(self) -> None:
        """Close all connections that nobody uses now."""
        self.DropConnections()  # type: ignore[no-untyped-call]

    def GetConnection(self) -> TrustedConnection:  # noqa: N802 - pyvmomi's
        """Return a connection from the pool or a new one. Raises: `AccessDenied`, `Unavailable`."""
        with self.lock:
            self._CloseIdleConnections()  # type: ignore[no-untyped-call]
            if self.pool:
                connection: TrustedConnection = self.pool.pop(0)[0]
                return connection
        connection = self._trust.connection(*self._peer)
        connection.connect()
        return connection


class LoginStub(Stub):
    """Takes the cookie that the server gives it."""

    @property
    def cookie(self) -> str:
        """The session's cookie as it is sent."""
        return self._cookie

    @cookie.setter
    def cookie(self, value: str) -> None:
        self._cookie = value.partition(";")[0]


def best_version(offered: bytes) -> str | None:
    """Return the newest API version that both sides know, from the host's ``vimServiceVersions.xml``."""
    theirs = set(re.findall(r"<version>\s*([^<\s]+)\s*</version>", offered.decode(errors="replace")))
    ours: list[Any] = GetServiceVersions("vim25")
    return next((str(version) for version in ours if versionIdMap[version] in theirs), None)
