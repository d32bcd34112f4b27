"""The kernel's initiator, as far as a machine without iscsi_tcp can: with an iscsiadm that attaches a file.

In a mount namespace where /etc/iscsi is our own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

USER = """
import os, sys
from pathlib import Path
from vbackup.api import SecretRef, VBackupError
from vbackup_iscsi.options import Chap, IscsiOptions, Timing
from vbackup_iscsi.transport import Iscsi
chap = Chap(user="vbackup", password=SecretRef(env="PASSWORD"))
target = "iqn.2026-01.org.vbackup.test:fake"
options = IscsiOptions(portal="127.0.0.1", target=target, lun=1, chap=chap, client="kernel")
transport = Iscsi(options, runtime=Path(sys.argv[1]), timing=Timing(settle=0.5))
try:
    transport.create()
    transport.put("a", b"1")
    print(transport.get("a").decode(), transport.check()[0].detail)
    if sys.argv[2:] == ["die"]:
        os.kill(int(transport.root.readlink().parts[2]), 9)
    else:
        transport.close()
except VBackupError as error:
    print(type(error).__name__, error)
print(*[file for file in Path("/etc/iscsi/nodes").rglob("*") if file.is_file()])
"""


@pytest.fixture
def world(tmp_path):
    """Where the iscsiadm of the tests lives."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/iscsiadm").symlink_to(Path(__file__).with_name("iscsiadm"))
    (tmp_path / "etc").mkdir()
    with (tmp_path / "image").open("wb") as image:
        image.truncate(1 << 30)
    return tmp_path


def use(world, *words, password="a-chap-secret"):
    """Use the LUN in another process; return what it says, line by line."""
    script = 'mkdir "$0/etc/iscsi"; cp -a /etc/. "$0/etc"; mount --bind "$0/etc" /etc && exec "$@"'
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        str(world),
        sys.executable,
        "-c",
        USER,
        str(world / "run"),
        *words,
    ]
    path = f"{world}/bin:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PASSWORD": password}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


def test_attaches_and_undoes_it(world):
    said, records = use(world)
    assert said == "1 kernel: as configured"
    assert records == "", "the record has the password"
    assert not (world / "session").exists()
    calls = (world / "calls").read_text()
    assert "iface.initiatorname -v iqn.2026-01.org.vbackup:" in calls
    assert "a-chap-secret" not in calls
    assert str(world) not in subprocess.check_output(["losetup", "--list"], text=True)


def test_cleans_up_after_a_killed_keeper(world):
    _, records = use(world, "die")
    assert "vbackup-" in records
    assert (world / "session").exists()
    said, records = use(world)
    assert said.startswith("1 ")
    assert records == ""
    assert not (world / "session").exists()


def test_a_wrong_password(world):
    refused, records = use(world, password="wrong")
    assert refused.startswith("AccessDenied cannot attach LUN 1 of iqn.2026-01.org.vbackup.test:fake at 127.0.0.1:3260")
    assert records == ""
