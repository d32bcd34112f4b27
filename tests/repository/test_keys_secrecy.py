"""Nothing secret is shown: neither in reprs nor in errors, nor in what is handed out of a slot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.repository.key_site import PRIVATE, quick, site, written
from tests.support import SECRET
from vbackup.api import Corrupt, VBackupError
from vbackup.repository import hybrid, keys
from vbackup.repository.keys import Slot, new_key_file, public_of
from vbackup.repository.sealing import Keys
from vbackup.testing.transports import MemoryTransport

__all__ = ["quick", "site", "written"]  # fixtures


def test_reprs_and_errors_show_no_secret(written):
    ring = written.unlocked()
    secrets = [ring.write, *ring.seeds.values(), SECRET.decode(), PRIVATE.decode()]
    holder = written.ring()
    shown = [repr(ring), str(ring), repr(Keys(ring, written.id)), repr(holder), repr(holder.slots())]
    shown += [repr(Slot.model_validate(slot)) for slot in written.slots().values()]
    broken = json.loads(ring.model_dump_json()) | {"generation": -1}
    slot = keys.wrap_to(ring, public_of(PRIVATE), written.id)
    sealed = hybrid.seal_to(public_of(PRIVATE), json.dumps(broken).encode(), b"vbackup 1 slot" + written.id)
    other = MemoryTransport()
    keys.put_slot(other, slot.model_copy(update={"wrapped": sealed.hex()}))
    with pytest.raises(Corrupt, match="no key slot can be read") as caught:
        keys.unlock(other, PRIVATE, written.id)
    shown += [everything(caught.value)]
    with pytest.raises(VBackupError) as caught:
        written.open(new_key_file()).points()
    shown += [everything(caught.value)]
    for text in shown:
        assert not [secret for secret in secrets if secret in text]


def everything(error):
    import traceback

    return "".join(traceback.format_exception(error))


def test_the_values_that_are_handed_out_are_plain(site):
    (slot,) = site.ring().slots()
    assert replace(slot, label="x").label == "x"
    assert set(slot.__slots__) == {"id", "type", "label", "created", "may_read", "in_use", "state", "fingerprint"}
