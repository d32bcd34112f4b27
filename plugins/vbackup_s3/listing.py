"""Listings that are whole, or an error: each answer must prove that it is one, and that it follows the one before.

"ListObjectsV2" in the Amazon S3 API Reference: keys come in the order of their UTF-8 bytes, in pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vbackup.api import ObjectInfo, Unavailable, Unsupported


def listed(client: Any, bucket: str, prefix: str, limit: int | None = None) -> Iterator[ObjectInfo]:
    """Yield the objects whose full key starts with a prefix, in order; at most ``limit``, which is of one page.

    Raises: `Unavailable`, `Unsupported`, and what botocore does.
    """
    asked = {"Bucket": bucket, "Prefix": prefix} | ({} if limit is None else {"MaxKeys": limit})
    last: bytes = b""
    while True:
        page = client.list_objects_v2(**asked)
        need_listing(page, bucket)
        for found in page.get("Contents", ()):
            info = _object(found, bucket, prefix)
            if info.key.encode() <= last:
                raise Unavailable(
                    f"cannot list {prefix}* in bucket {bucket}: the store gave {info.key!r} twice or out of order"
                )
            last = info.key.encode()
            yield info
        if limit is not None or not page["IsTruncated"]:
            return
        token = page.get("NextContinuationToken")
        if not token:
            why = "the store says that there is more, and not how to ask for it: it may know ListObjects only"
            raise Unsupported(
                f"cannot list {prefix}* in bucket {bucket}: {why}", hint="vbackup needs a store with ListObjectsV2"
            )
        if token == asked.get("ContinuationToken"):
            raise Unavailable(f"cannot list {prefix}* in bucket {bucket}: the store gave one page twice")
        asked["ContinuationToken"] = token


def need_listing(page: Any, bucket: str) -> None:
    """Raise `Unavailable` for what is none, an HTML page or an error that came with 200, which has no keys either."""
    if "Name" not in page or "IsTruncated" not in page:
        hint = "something between here and the store may answer in its place: check `endpoint`, proxies and the network"
        raise Unavailable(f"cannot list bucket {bucket}: the answer is no listing of S3", hint=hint)


def _object(found: Any, bucket: str, prefix: str) -> ObjectInfo:
    key, size = found.get("Key"), found.get("Size")
    if key is None or size is None or not key.startswith(prefix):
        raise Unavailable(
            f"cannot list {prefix}* in bucket {bucket}: the store gave something else, {str(key)[:200]!r}"
        )
    return ObjectInfo(key, size)
