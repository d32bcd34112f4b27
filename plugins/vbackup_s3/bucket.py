"""Requests on one bucket. Each is tried once and ends in its answer or in one of our errors.

Bytes of objects go by obstore, which is several times as fast; all else by botocore, which is stricter.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from vbackup.api import NotFound, ObjectInfo, Unavailable
from vbackup_s3.credentials import Credentials
from vbackup_s3.failures import beyond_the_end, refusal, told
from vbackup_s3.listing import listed
from vbackup_s3.options import S3Options
from vbackup_s3.service import Service
from vbackup_s3.store import make_store

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions
    from obstore.store import S3Store

WHOLE = 64 << 20
"""Bytes. Larger objects go over in parts."""
_STEPS = (256 << 10, 1 << 20, 4 << 20, 16 << 20, WHOLE)
_PART = 16 << 20
_PARTS_AT_ONCE = 4
_PIECE = 4 << 20
_IN_ITS_PLACE = (
    "something between here and the store may answer in its place: check `endpoint`, proxies and the network"
)


class Bucket:
    """Objects below the prefix, by their keys. For many threads at once; what is asked after `close` connects again."""

    def __init__(self, options: S3Options, credentials: Credentials, service: Service) -> None:
        self._options = options
        self._credentials = credentials
        self._service = service
        self._at = f"{options.prefix}/" if options.prefix else ""
        self._lock = threading.Lock()
        self._stores: dict[int, S3Store] = {}
        at = f"{options.bucket}/{options.prefix}" if options.prefix else options.bucket
        self.place = f"bucket {at} at {credentials.host()}"

    def put(self, key: str, data: memoryview, *, create: bool, storage_class: str | None) -> None:
        """Store an object, in parts if it is larger than `WHOLE` and may replace another.

        Stores ignore the condition on an upload in parts.
        """
        import obstore

        in_parts = len(data) > WHOLE and not create
        attributes: Attributes = {} if storage_class is None else {"Storage-Class": storage_class}
        with told(f"store {key} in {self.place}"):
            stored = obstore.put(
                self._store(len(data)),
                key,
                data,
                mode="create" if create else "overwrite",
                attributes=attributes,
                use_multipart=in_parts,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )
        if not stored["e_tag"] and not in_parts:  # of parts, obstore itself needs the tags
            raise Unavailable(f"cannot store {key} in {self.place}: the answer has no ETag", hint=_IN_ITS_PLACE)

    def get(self, key: str, offset: int, length: int | None) -> bytes | None:
        """Return bytes; None if ``offset`` is beyond the end. ``length`` is not 0."""
        import obstore

        # No range where none is needed: Ceph 16 answers 500 to one while the object is replaced.
        options: GetOptions = {}
        if length is not None:
            options = {"range": (offset, offset + length)}
        elif offset:
            options = {"range": {"offset": offset}}
        with told(f"read {key} in {self.place}"):
            try:
                answer = obstore.get(self._store(), key, options=options)
                if str(answer.attributes.get("Content-Type")).startswith("text/html"):  # obstore follows redirects
                    raise Unavailable(f"cannot read {key} in {self.place}: the answer is a page", hint=_IN_ITS_PLACE)
                return b"".join(answer.stream(min_chunk_size=_PIECE))
            except obstore.exceptions.BaseError as error:
                if beyond_the_end(error):
                    return None
                raise

    def size(self, key: str) -> int | None:
        """Return bytes; None if somebody says 404: an answer to HEAD has no room to say of what, or who it is."""
        with told(f"look at {key} in {self.place}"):
            client = self._service.client()
            try:
                answer = client.head_object(Bucket=self._options.bucket, Key=self._at + key)
            except client.exceptions.ClientError as error:
                refused = refusal(error)
                if refused is not None and refused.status == 404:
                    return None
                raise
        if "ETag" not in answer:
            raise Unavailable(f"cannot look at {key} in {self.place}: the answer has no ETag", hint=_IN_ITS_PLACE)
        return int(answer["ContentLength"])

    def list(self, prefix: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        """Yield what begins with a prefix, whatever its name, in order; at most ``limit`` (up to 1000)."""
        with told(f"list {prefix or 'all'} in {self.place}"):
            for found in listed(self._service.client(), self._options.bucket, self._at + prefix, limit):
                yield ObjectInfo(found.key.removeprefix(self._at), found.size)

    def below(self, key: str) -> Iterator[ObjectInfo]:
        """Yield the object of just that name, and those below it, in order: with one request for up to 1000 of them.

        It shows ``points-old`` and ``pointsmen``, too. What comes before ``points/`` may be many, and is passed by.
        """
        for info in self.list(key):
            if info.key == key or info.key.startswith(f"{key}/"):
                yield info
            elif info.key < f"{key}/":
                yield from self.list(f"{key}/")
                return
            else:
                return

    def delete(self, key: str) -> None:
        """Delete an object; what is not there is no error, but a bucket that is not there is."""
        with suppress(NotFound), told(f"delete {key} in {self.place}"):
            answer = self._service.client().delete_object(Bucket=self._options.bucket, Key=self._at + key)
            if answer["ResponseMetadata"]["HTTPStatusCode"] != 204 and self.size(key) is not None:
                raise Unavailable(f"cannot delete {key} in {self.place}: it is still there", hint=_IN_ITS_PLACE)

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            self._stores.clear()

    def _store(self, size: int = 0) -> S3Store:
        """Return the client for bodies of that size: how long to wait for an answer depends on it."""
        self._credentials.fetch()  # raises our errors; what is raised inside of obstore loses its kind
        largest = next((step for step in _STEPS if size <= step), WHOLE)
        with self._lock:
            if largest not in self._stores:
                self._stores[largest] = make_store(self._options, self._credentials, largest)
            return self._stores[largest]
