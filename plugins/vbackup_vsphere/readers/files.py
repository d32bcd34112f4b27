"""Paths of files on datastores, and where the host shows them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote

from vbackup.api import Unsupported

_PATH = re.compile(r"\[(?P<datastore>[^\]]+)\] (?P<path>[^/ ].*)")


@dataclass(frozen=True, slots=True)
class DatastoreFile:
    """A file: its datacenter's path, its datastore's name and its path in there."""

    datacenter: str
    datastore: str
    path: str

    def url(self) -> str:
        """Return its path on the host, with the query that ``/folder`` wants."""
        where = f"dcPath={quote(self.datacenter, safe='')}&dsName={quote(self.datastore, safe='')}"
        return f"/folder/{quote(self.path)}?{where}"

    def beside(self, name: str) -> DatastoreFile:
        """Return the file of that name in the same directory."""
        directory, slash, _ = self.path.rpartition("/")
        return replace(self, path=f"{directory}{slash}{name}")


def split_path(path: str, datacenter: str) -> DatastoreFile:
    """Return the file that vSphere calls ``[datastore] directory/name``. Raises: `Unsupported`."""
    match = _PATH.fullmatch(path)
    if match is None or ".." in match["path"].split("/"):
        raise Unsupported(f"{path!r} is no path of a datastore")
    return DatastoreFile(datacenter, match["datastore"], match["path"])
