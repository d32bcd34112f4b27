"""A real Apache httpd with mod_dav on loopback, with nothing of this machine's own configuration."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from vbackup_webdav.options import WebDavOptions

from vbackup.api import SecretRef

USER, PASSWORD = "backup", "correct horse: battery ü"
_HTTPD = shutil.which("apache2", path=f"{os.environ['PATH']}:/usr/sbin") or "/usr/sbin/apache2"
_MODULES = "/usr/lib/apache2/modules"
_CONFIG = """
DefaultRuntimeDir {root}/run
PidFile {root}/run/httpd.pid
ErrorLog {root}/error.log
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{tls_port}
{user}
{modules}
StartServers 1
ServerLimit 2
ThreadsPerChild 32
MaxRequestWorkers 64
KeepAliveTimeout 30
DavLockDB {root}/run/locks
TypesConfig /dev/null
DocumentRoot {root}/dav
Alias /readonly {root}/dav
<Location />
  Dav On
  AuthType Basic
  AuthName backups
  AuthUserFile {root}/users
  Require valid-user
</Location>
<Location /readonly>
  <LimitExcept GET HEAD OPTIONS PROPFIND>
    Require all denied
  </LimitExcept>
</Location>
<VirtualHost 127.0.0.1:{tls_port}>
  SSLEngine on
  SSLCertificateFile {root}/certificate
  SSLCertificateKeyFile {root}/key
</VirtualHost>
"""
_LOADED = "mpm_event authn_core authn_file authz_core authz_user auth_basic alias dir autoindex mime dav dav_fs ssl"


class Apache:
    """The server; `dav` is what it serves. With ``mebibytes`` that is a file system of so many, which needs root.

    A context manager. The processes end with the tests, also when those are killed.
    """

    def __init__(self, mebibytes: int = 0) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="vbackup-apache-", dir="/var/tmp"))
        self.root.chmod(0o755)  # the server is somebody else, if we are root
        self.dav = self.root / "dav"
        self.port, self.tls_port = _free_ports()
        self._mebibytes = mebibytes
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("dav", "run"):
            (self.root / name).mkdir(mode=0o777)
            (self.root / name).chmod(0o777)
        self.password = self.root / "password"
        self.password.touch(mode=0o600)
        self.password.write_text(PASSWORD)
        digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()  # quick: it is asked each time
        (self.root / "users").write_text(f"{USER}:{{SHA}}{digest}\n")
        self._make_certificate()
        modules = [f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in _LOADED.split()]
        user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        config = _CONFIG.format(
            root=self.root, port=self.port, tls_port=self.tls_port, modules="\n".join(modules), user=user
        )
        (self.root / "httpd.conf").write_text(config)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        shutil.rmtree(self.root)

    @property
    def certificate(self) -> Path:
        """What it shows over TLS: its own authority."""
        return self.root / "certificate"

    def options(self, path: str, *, tls: bool = False, **more: Any) -> WebDavOptions:
        """Return the options of a transport at ``path`` ("/a")."""
        url = f"https://127.0.0.1:{self.tls_port}{path}" if tls else f"http://127.0.0.1:{self.port}{path}"
        login = {"user": USER, "password": SecretRef(file=self.password)}
        trusted = {"ca": self.certificate} if tls else {}
        return WebDavOptions.model_validate({"url": url, **login, **trusted, **more})

    def new_name(self) -> str:
        """Return the path of a collection that is not there."""
        return f"/store-{secrets.token_hex(4)}"

    def start(self) -> None:
        """Start it, on the same port as before, with what it had; on return it answers."""
        (self.root / "run" / "httpd.pid").unlink(missing_ok=True)
        httpd = ["setpriv", "--pdeathsig", "TERM", _HTTPD, "-d", str(self.root), "-f", f"{self.root}/httpd.conf"]
        command = [*httpd, "-D", "FOREGROUND"]
        if self._mebibytes:
            mount = f"mount -t tmpfs -o mode=777,size={self._mebibytes}m tmpfs {self.dav}"
            command = ["unshare", "--mount", "sh", "-ec", f'{mount}; exec "$@"', "sh", *command]
        self._process = subprocess.Popen(command, start_new_session=True)
        self._until(lambda: _listens(self.port), "does not answer")

    def kill(self) -> None:
        """Kill -9 it with all its processes; on return the port is closed."""
        assert self._process is not None
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._until(lambda: not _listens(self.port), "does not end")

    def _until(self, condition: Callable[[], bool], failure: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            if time.monotonic() > deadline or (self._process.poll() is not None and failure != "does not end"):
                log = self.root / "error.log"
                raise AssertionError(f"httpd {failure}: {log.read_text() if log.exists() else 'no log'}")
            time.sleep(0.02)

    def _make_certificate(self) -> None:
        kind = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=vbackup-tests"
        subprocess.run(
            ["openssl", "req", *kind.split(), "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", f"{self.root}/key", "-out", f"{self.root}/certificate"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
