"""Requests on one bucket by obstore. Each is tried once and ends in its answer or in one of our errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from vbackup.api import NotFound, ObjectInfo
from vbackup_s3.credentials import Credentials
from vbackup_s3.failures import beyond_the_end, told
from vbackup_s3.options import S3Options
from vbackup_s3.store import make_store

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions
    from obstore.store import S3Store

WHOLE = 64 << 20
"""Bytes. Larger objects go over in parts."""
_SMALL = 256 << 10
_PART = 16 << 20
_PARTS_AT_ONCE = 4
_PIECE = 4 << 20
_PAGE = 1000


class Bucket:
    """Objects below the prefix, by their keys. For many threads at once; what is asked after `close` connects again."""

    def __init__(self, options: S3Options, credentials: Credentials) -> None:
        self._options = options
        self._credentials = credentials
        self._lock = threading.Lock()
        self._stores: dict[int, S3Store] = {}
        at = f"{options.bucket}/{options.prefix}" if options.prefix else options.bucket
        self.place = f"bucket {at} at {credentials.host()}"

    def put(self, key: str, data: memoryview, *, create: bool, storage_class: str | None) -> None:
        """Store an object, in parts if it is larger than `WHOLE` and may replace another.

        Stores ignore the condition on an upload in parts.
        """
        import obstore

        attributes: Attributes = {} if storage_class is None else {"Storage-Class": storage_class}
        with told(f"store {key} in {self.place}"):
            obstore.put(
                self._store(_SMALL if len(data) <= _SMALL else WHOLE),
                key,
                data,
                mode="create" if create else "overwrite",
                attributes=attributes,
                use_multipart=len(data) > WHOLE and not create,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )

    def get(self, key: str, offset: int, length: int | None) -> bytes | None:
        """Return bytes; None if ``offset`` is beyond the end. ``length`` is not 0."""
        import obstore

        options: GetOptions = {}
        if length is not None:
            options = {"range": (offset, offset + length)}
        elif offset:
            options = {"range": {"offset": offset}}
        with told(f"read {key} in {self.place}"):
            try:
                return b"".join(obstore.get(self._store(_SMALL), key, options=options).stream(min_chunk_size=_PIECE))
            except obstore.exceptions.BaseError as error:
                if beyond_the_end(error):
                    return None
                raise

    def size(self, key: str) -> int | None:
        """Return bytes; None if the object, or even the bucket, is not there."""
        import obstore

        with suppress(NotFound), told(f"look at {key} in {self.place}"):
            return obstore.head(self._store(_SMALL), key)["size"]
        return None

    def list(self, prefix: str | None) -> Iterator[ObjectInfo]:
        """Yield what is below a prefix, whatever its name; the marker of a "directory" comes as an empty object."""
        import obstore

        with told(f"list {prefix or 'all'} in {self.place}"):
            for page in obstore.list(self._store(_SMALL), prefix, chunk_size=_PAGE):
                yield from (ObjectInfo(found["path"], found["size"]) for found in page)

    def delete(self, key: str) -> None:
        """Delete an object; what is not there is no error, but a bucket that is not there is."""
        import obstore

        with suppress(NotFound), told(f"delete {key} in {self.place}"):
            obstore.delete(self._store(_SMALL), key)

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            self._stores.clear()

    def _store(self, largest: int) -> S3Store:
        """Return the client for bodies of that size: how long to wait for an answer depends on it."""
        self._credentials.fetch()  # raises our errors; what is raised inside of obstore loses its kind
        with self._lock:
            if largest not in self._stores:
                self._stores[largest] = make_store(self._options, self._credentials, largest)
            return self._stores[largest]
