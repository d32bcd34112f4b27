"""Shared by transports over file servers: objects are files, stored by the few calls that a client of one has.

It registers nothing. `Files` is what a client has to do; `FileStore` makes a transport of it; `Pool` keeps its
connections; `told` says what an errno means.
"""

from vbackup_files.failures import as_ours, told
from vbackup_files.files import Files, Found
from vbackup_files.pool import Pool
from vbackup_files.store import FileStore

__all__ = ["FileStore", "Files", "Found", "Pool", "as_ours", "told"]
