"""Ceph's object gateway with a monitor and one store behind it, on free ports of 127.0.0.1.

Objects live in memory, so keep them small and give buckets back; with ``durable`` they live in a sparse file, and
survive when all daemons are killed, at the cost of a start that takes seconds longer.
"""

from __future__ import annotations

import functools
import json
import secrets
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.daemon import Daemons, end, free_port, listens, run

_PATIENCE = 120
_LARGE = 64 << 10
_REGION = "us-east-1"

# Every line has a reason: one store that is its own only copy, nothing outside loopback, no waiting for others.
_CONF = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = [{monitor}]
public network = 127.0.0.0/8
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd client watch timeout = 5
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon max pg per osd = 500
run dir = {root}/run
pid file = {root}/run/$type.$id.pid
admin socket = {root}/run/$type.$pid.asok
log file = {root}/log-$type
crash dir = {root}/run
mon data = {root}/mon
osd data = {root}/osd
osd objectstore = {store}
memstore device bytes = 8G
bluestore block size = 10G
osd memory target = 1G
keyring = {root}/keyring
paxos propose interval = 0.05
paxos min wait = 0.02
mon tick interval = 1
mon client hunt interval = 0.5
[mon]
mon data avail crit = 1
mon data avail warn = 2
[client.rgw]
rgw data = {root}/rgw
rgw frontends = {frontends}
rgw bucket quota ttl = 0
rgw enable usage log = false
rgw dynamic resharding = false
rgw run sync thread = false
rgw lc debug interval = -1
rgw gc obj min wait = 0
rgw gc processor period = 1
rgw gc processor max time = 1
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = vbackup-test=YmluCmJvb3N0CmJvb3N0LWJ1aWxkCmNlcGguY29uZgo=
rgw sts key = abcdefghijklmnop
rgw s3 auth use sts = true
debug rgw = 0
"""

_KEYS = (
    ("mon.", "mon", "allow *"),
    ("client.admin", "mon", "allow *", "osd", "allow *"),
    ("client.rgw", "mon", "allow rw", "osd", "allow rwx"),
    ("osd.0", "mon", "allow profile osd", "osd", "allow *"),
)


class Radosgw:
    """One gateway, answering; `kill` and `start` take it away and bring it back as it was."""

    region = _REGION
    access_key = "vbackup"
    secret_key = "vbackup+secret/key"  # has characters that break what does not encode them

    def __init__(self, daemons: Daemons, *, durable: bool = False, tls: tuple[Path, Path] | None = None) -> None:
        """Start it; ``tls`` is a file of key and certificate, for ``localhost``, and one of its authority."""
        self._daemons = daemons
        self._root = daemons.root
        self._conf = self._root / "ceph.conf"
        self._fsid = str(uuid.uuid4())
        self._monitor = f"v2:127.0.0.1:{free_port()}/0,v1:127.0.0.1:{free_port()}/0"
        self._port = free_port()
        self._authority = tls[1] if tls else None
        self.endpoint = f"https://localhost:{self._port}" if tls else f"http://127.0.0.1:{self._port}"
        self._configure("bluestore" if durable else "memstore", tls[0] if tls else None)
        self._pids: dict[str, int] = {}
        self._found()
        self.start()
        self._radosgw_admin("user", "create", "--uid", "vbackup", "--display-name", "vbackup",
                            "--access-key", self.access_key, "--secret-key", self.secret_key,
                            "--caps", "roles=*")  # fmt: skip

    def kill(self) -> None:
        """End the gateway by SIGKILL; its store stays."""
        end(self._pids.pop("rgw"), signal.SIGKILL)

    def kill_all(self) -> None:
        """End all three daemons by SIGKILL; only one that is durable can be started again."""
        while self._pids:
            end(self._pids.popitem()[1], signal.SIGKILL)

    def start(self) -> None:
        """Start what does not run, and wait until the gateway answers."""
        if "mon" not in self._pids:
            self._pids["mon"] = self._spawn("ceph-mon", "-i", "a")
        if "osd" not in self._pids:
            self._pids["osd"] = self._spawn("ceph-osd", "-i", "0")
            self._until(lambda: json.loads(self._ceph("osd", "stat", "--format=json"))["num_up_osds"] == 1)
        if "rgw" not in self._pids:
            self._pids["rgw"] = self._spawn("radosgw", "-n", "client.rgw")
            self._until(lambda: listens(self._port))

    @functools.cache  # noqa: B019 - there are few gateways, and making a client takes long
    def client(self) -> Any:
        """Return a client of botocore, of the owner of all buckets."""
        import botocore.config
        import botocore.session

        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=_REGION,
            config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2}),
            verify=self._authority,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )

    def new_bucket(self, *, lock: bool = False) -> str:
        """Make an empty bucket, with object locks or without, and return its name."""
        name = f"vb-{secrets.token_hex(8)}"
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        return name

    def give_back(self, bucket: str) -> None:
        """Delete the large ones of the first thousand objects of a bucket; the others go when the gateway does."""
        client = self.client()
        for found in client.list_object_versions(Bucket=bucket).get("Versions", ()):
            if found["Size"] >= _LARGE:
                client.delete_object(Bucket=bucket, Key=found["Key"], VersionId=found["VersionId"])

    def new_user(self) -> tuple[str, str, str]:
        """Make a user who has nothing; return its name, access key and secret key."""
        name, access, secret = (f"{prefix}{secrets.token_hex(8)}" for prefix in ("user", "AK", "sk"))
        self._radosgw_admin("user", "create", "--uid", name, "--display-name", name,
                            "--access-key", access, "--secret-key", secret)  # fmt: skip
        return name, access, secret

    def allow(self, bucket: str, user: str, *actions: str) -> None:
        """Let ``user`` do only ``actions`` (``s3:GetObject`` ...) in a bucket."""
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        statement = {
            "Effect": "Allow", "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]},
            "Action": list(actions), "Resource": resources,
        }  # fmt: skip
        self.client().put_bucket_policy(Bucket=bucket, Policy=_policy(statement))

    def limit(self, bucket: str, size: int) -> None:
        """Let a bucket hold at most so many bytes."""
        self._radosgw_admin("quota", "set", "--quota-scope=bucket", f"--bucket={bucket}", f"--max-size={size}")
        self._radosgw_admin("quota", "enable", "--quota-scope=bucket", f"--bucket={bucket}")

    def new_role(self) -> str:
        """Make a role that the owner of the buckets may assume, and that may do all with them; return its ARN."""
        name = f"role{secrets.token_hex(8)}"
        trust = {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/vbackup"]}, "Action": ["sts:AssumeRole"]}
        rights = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
        role = f"--role-name={name}"
        self._radosgw_admin("role", "create", role, f"--assume-role-policy-doc={_policy(trust)}")
        self._radosgw_admin("role-policy", "put", role, "--policy-name=all", f"--policy-doc={_policy(rights)}")
        return f"arn:aws:iam:::role/{name}"

    def entry(self, *, lock: bool = False) -> dict[str, Any]:
        """Make a bucket and return the options of a transport on it; the secret is a file."""
        secret = self._root / "secret-key"
        if not secret.exists():
            secret.touch(0o600)
            secret.write_text(self.secret_key)
        return {
            "bucket": self.new_bucket(lock=lock), "endpoint": self.endpoint, "region": _REGION, "object_lock": lock,
            "access_key_id": self.access_key, "secret_access_key": {"file": str(secret)},
        }  # fmt: skip

    def remove(self, options: dict[str, Any]) -> None:
        """Remove the bucket of an `entry`."""
        self.give_back(options["bucket"])

    def _configure(self, store: str, certificate: Path | None) -> None:
        for directory in ("mon", "osd", "run", "rgw"):
            (self._root / directory).mkdir()
        kind = "ssl_endpoint" if certificate else "endpoint"
        tls = f" ssl_certificate={certificate}" if certificate else ""
        self._conf.write_text(
            _CONF.format(
                fsid=self._fsid, root=self._root, store=store, monitor=self._monitor,
                frontends=f"beast {kind}=127.0.0.1:{self._port}{tls} tcp_nodelay=1",
            )
        )  # fmt: skip

    def _found(self) -> None:
        """Make keys, and empty stores of the monitor and of objects."""
        keyring, monmap = self._root / "keyring", self._root / "monmap"
        keyring.touch(0o600)
        for name, *caps in _KEYS:
            words = [word for who, what in zip(caps[::2], caps[1::2], strict=True) for word in ("--cap", who, what)]
            run("ceph-authtool", keyring, "--gen-key", "-n", name, *words)
        run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", f"[{self._monitor}]", monmap)
        run("ceph-mon", "-c", self._conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._pids["mon"] = self._spawn("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self._ceph("osd", "new", osd)
        run("ceph-osd", "-c", self._conf, "-i", "0", "--mkfs", "--osd-uuid", osd)

    def _spawn(self, program: str, *arguments: str) -> int:
        return self._daemons.spawn(program, "-c", self._conf, *arguments, "-f")

    def _ceph(self, *arguments: str) -> bytes:
        return run("ceph", "-c", self._conf, "--connect-timeout", "60", *arguments)

    def _radosgw_admin(self, *arguments: str) -> bytes:
        return run("radosgw-admin", "-c", self._conf, "-n", "client.rgw", *arguments)

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"Ceph does not come up: {self._daemons.log}"
            time.sleep(0.05)


def _policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture(scope="session")
def radosgw() -> Iterator[Radosgw]:
    """One gateway per worker."""
    with Daemons("radosgw") as daemons:
        yield Radosgw(daemons)
