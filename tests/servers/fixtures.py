"""Real servers as pytest fixtures, for the tests of this tree and of ``plugins/*/tests``."""

from tests.servers.ganesha import ganesha
from tests.servers.radosgw import radosgw
from tests.servers.samba import samba
from tests.servers.sshd import sshd
from tests.servers.stores import make_store
from tests.servers.tgtd import tgtd

__all__ = ["ganesha", "make_store", "radosgw", "samba", "sshd", "tgtd"]
