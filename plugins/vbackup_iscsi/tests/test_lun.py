"""What may be on a LUN, and what may become of it."""

from __future__ import annotations

import hashlib
import os
import subprocess

import pytest

from vbackup.api import Level, NotFound, Unavailable, Unsupported
from vbackup_iscsi.header import Label, _encoded

MIB = 1 << 20


def everything(transport):
    """What attaches it; the others do as these."""
    yield lambda: transport.put("a", b"1", if_absent=True)
    yield lambda: transport.get("a")
    yield lambda: list(transport.list())


def digest(lun):
    with lun.image.open("rb") as image:
        return hashlib.blake2b(image.read(16 * MIB)).digest()


def write(lun, offset, data):
    with lun.image.open("r+b") as image:
        image.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        image.write(data)


def test_create_formats_a_blank_lun_once(lun, host):
    transport = host.open(lun)
    transport.create()
    transport.put("a", b"1")
    transport.close()
    for force in (False, True):
        host.open(lun).create(force=force)
        assert host.open(lun).get("a") == b"1"


def test_mounted_for_nobody_else_and_without_powers(formatted, host):
    transport = host.open(formatted)
    transport.put("a", b"1")
    mounts = (transport.root.readlink().parents[-3] / "mounts").read_text().splitlines()
    (mount,) = (line.split() for line in mounts if str(host.runtime) in line and " xfs " in line)
    assert {"nosuid", "nodev", "noexec"} <= set(mount[3].split(","))
    assert transport.root.stat().st_mode & 0o777 == 0o700
    assert (host.runtime / transport._directory.name).stat().st_mode & 0o777 == 0o700
    assert not os.path.ismount(transport._directory / "mount"), "it is seen outside of its namespace"


def test_a_foreign_file_system_is_refused(lun, host):
    subprocess.run(["mkfs.ext4", "-q", "-F", str(lun.image)], check=True)
    before = digest(lun)
    for action in [*everything(host.open(lun)), host.open(lun).create]:
        with pytest.raises(Unsupported, match="ext4") as caught:
            action()
        assert not caught.value.transient
    assert Level.ERROR in {finding.level for finding in host.open(lun).check()}
    assert digest(lun) == before
    transport = host.open(lun)
    transport.create(force=True)
    transport.put("a", b"1")
    assert transport.get("a") == b"1"


def test_a_foreign_file_system_over_ours_is_refused(formatted, host):
    subprocess.run(["mkfs.ext4", "-q", "-F", str(formatted.image)], check=True)
    with pytest.raises(Unsupported, match="ext4"):
        host.open(formatted).create()


@pytest.mark.parametrize("offset", [5000, MIB - 1, 2 * MIB, -1])
def test_any_foreign_byte_at_either_end_is_refused(lun, host, offset):
    write(lun, offset, b"x")
    with pytest.raises(Unsupported, match="unknown kind"):
        host.open(lun).create()


def test_a_format_that_was_not_finished_is_done_again(formatted, host):
    write(formatted, 0, _encoded(Label(MIB, "1", whole=False)))
    with pytest.raises(Unavailable, match="vbackup init") as caught:
        host.open(formatted).get("a")
    assert not caught.value.transient
    host.open(formatted).create()
    host.open(formatted).put("a", b"1")


def test_a_store_without_its_label_is_no_blank_lun(formatted, host):
    write(formatted, 0, bytes(4096))
    with pytest.raises(Unsupported):
        host.open(formatted).create()


def test_another_store_in_its_place_is_noticed(formatted, host):
    """What was stored before must not be parted from what is stored from now on."""
    transport = host.open(formatted)
    transport.put("a", b"1")
    transport.close()
    write(formatted, 0, _encoded(Label(MIB, "another")))
    with pytest.raises(Unavailable, match="another store") as caught:
        transport.get("a")
    assert not caught.value.transient


def test_a_damaged_label_is_no_blank_lun(formatted, host):
    write(formatted, 200, b"x")
    with pytest.raises(Unsupported):
        host.open(formatted).create()


def test_a_lun_that_has_shrunk_is_refused_before_it_is_mounted(formatted, host, tgtd):
    transport = host.open(formatted)
    transport.put("a", b"1")
    transport.close()
    tgtd.resize(formatted, 900 * MIB)
    before = digest(formatted)
    for action in [*everything(transport), transport.create]:
        with pytest.raises(Unavailable, match=f"{1024 * MIB} bytes and has {900 * MIB} bytes") as caught:
            action()
        assert not caught.value.transient
    assert digest(formatted) == before
    tgtd.resize(formatted, 1024 * MIB)
    assert transport.get("a") == b"1"
    transport.close()
    tgtd.resize(formatted, 1100 * MIB)
    assert transport.get("a") == b"1"


def test_a_lun_that_is_too_small(tgtd, host):
    small = tgtd.new_lun(300 * MIB)
    with pytest.raises(Unsupported, match="too small"):
        host.open(small).create()


def test_no_such_target_and_no_such_lun(lun, host):
    for more in ({"target": "iqn.2026-01.org.vbackup.test:none"}, {"lun": 7}):
        for action in (lambda more=more: host.open(lun, **more).get("a"), host.open(lun, **more).create):
            with pytest.raises(Unavailable) as caught:
                action()
            assert not caught.value.transient
            assert "portal" in caught.value.hint


def test_nobody_at_the_portal(lun, host):
    with pytest.raises(Unavailable) as caught:
        host.open(lun, portal="127.0.0.1:1").get("a")
    assert caught.value.transient
    assert host.traces() == []


def test_refusals_leave_nothing(lun, host):
    with pytest.raises(Unavailable):
        host.open(lun).get("a")
    assert host.traces() == []


def test_a_key_that_is_not_there(formatted, host):
    with pytest.raises(NotFound):
        host.open(formatted).get("a")
