"""A simulated vCenter (or ESXi host) with real bytes on its disks; see README.md."""

from __future__ import annotations

import hashlib
import json
import os
import select
import ssl
from pathlib import Path
from typing import Any, Self

from tests.servers.daemon import Daemons
from tests.vcsim import build
from tests.vcsim.control import SECONDS
from tests.vcsim.machines import Machines
from tests.vcsim.trouble import Trouble


class Simulator(Machines, Trouble):
    """One simulator, alone with its state. A context manager; it also ends when the tests are killed.

    Options are its flags, such as ``esx=True`` or ``lease_timeout="2s"``.
    """

    host, user, password = "127.0.0.1", "user", "pass"

    def __init__(self, **options: Any) -> None:
        program = build.simulator()
        self._daemons = Daemons("vcsim")
        try:
            self._start(program, options)
        except BaseException:
            self._daemons.close()
            raise

    def _start(self, program: Path, options: dict[str, Any]) -> None:
        self.root = self._daemons.root
        """A directory that ends with the simulator."""
        tree = self.root / "state"
        tree.mkdir()
        self._secret = self.root / "password"
        self._secret.write_text(self.password)
        self._secret.chmod(0o600)
        ready = self.root / "ready"
        os.mkfifo(ready)
        flags = [f"-{name.replace('_', '-')}={str(value).lower()}" for name, value in options.items()]
        pipe = os.open(ready, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self.pid = self._daemons.spawn(
                program, f"-state={tree}", f"-ready={ready}", f"-user={self.user}", f"-pass={self.password}", *flags
            )
            assert select.select([pipe], [], [], SECONDS)[0], f"vcsim does not start: {self._daemons.log}"
            told = json.loads(os.read(pipe, 1 << 16))
        finally:
            os.close(pipe)
        self.port: int = told["port"]
        self.ca = Path(told["ca"])
        """The certificate of its HTTPS, in PEM."""
        self.control = told["control"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and remove all that it kept."""
        self._daemons.close()

    @property
    def log(self) -> str:
        """The end of what it said."""
        return self._daemons.log

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the options of ``type: vsphere`` for this simulator."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": {"file": str(self._secret)},
            "ca": str(self.ca),
            **more,
        }

    def thumbprint(self, kind: str = "sha1") -> str:
        """Return the fingerprint of its certificate, such as ``AA:BB:...``; kind: sha1, sha256 or sha512."""
        digest = hashlib.new(kind, ssl.PEM_cert_to_DER_cert(self.ca.read_text()), usedforsecurity=False)
        return digest.digest().hex(":").upper()

    def vddk(self) -> dict[str, Any]:
        """Return the option ``vddk`` for this simulator: a stand-in for nbdkit's plugin, and a directory like VDDK's.

        What the plugin was asked is in `vddk_log`.
        """
        libdir = self.root / "vddk"
        (libdir / "lib64").mkdir(parents=True, exist_ok=True)
        (libdir / "lib64" / "libvixDiskLib.so.8").write_text("nothing of VMware's is in this file\n")
        (libdir / "fake.json").write_text(json.dumps({"control": self.control}))
        return {"libdir": str(libdir), "plugin": str(build.vddk_plugin())}

    def vddk_log(self) -> list[str]:
        """Return what the stand-in of `vddk` was asked, a line for each disk opened and each request."""
        log = self.root / "vddk" / "log"
        return log.read_text().splitlines() if log.exists() else []

    def calls(self) -> dict[str, int]:
        """Return how often each SOAP method was called, and each kind of HTTP request (``GET /folder``) made."""
        calls: dict[str, int] = self._ask("calls")
        return calls

    def call_log(self) -> list[dict[str, Any]]:
        """Return all calls in their order: ``n`` from 1, ``call``, ``on`` (object or path), ``status``, ``done``."""
        log: list[dict[str, Any]] = self._ask("call-log")
        return log

    def state(self) -> dict[str, Any]:
        """Return what is alive now (sessions, leases, snapshots, reads, vms...), uploads, and the ``peak`` of all."""
        state: dict[str, Any] = self._ask("state")
        return state

    def leaks(self) -> dict[str, Any]:
        """Return what of `state` ought to be empty when a client has gone."""
        state = self.state()
        kinds = ("sessions", "rest_sessions", "leases", "snapshots", "reads", "consolidation_needed")
        return {kind: state[kind] for kind in kinds if state[kind]}
