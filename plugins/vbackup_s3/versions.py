"""What obstore cannot do and botocore can: locks, versions, and what broken uploads left. Few and small requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from vbackup.api import AccessDenied, Locked, NotFound, Unsupported, clock
from vbackup_s3.credentials import Credentials, endpoint_of
from vbackup_s3.failures import refusal, told
from vbackup_s3.options import S3Options
from vbackup_s3.store import path_style

_NO_LOCKS = {"InvalidRequest", "InvalidBucketState", "NotImplemented"}
_NOT_LOCKED = {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"}
_ABANDONED = timedelta(days=1)


class Versions:
    """The versions of objects in a bucket, by their full keys; ``place`` names the bucket in messages."""

    def __init__(self, options: S3Options, credentials: Credentials, place: str) -> None:
        self._options = options
        self._credentials = credentials
        self._place = place
        self._lock = threading.Lock()
        self._made: tuple[Any, Any] | None = None

    def client(self) -> Any:
        """Return a client of botocore; a new one when the credentials are new."""
        keys = self._credentials.fetch()
        with self._lock:
            if self._made is None or self._made[0] is not keys:
                style = "path" if path_style(self._options) else "virtual"
                endpoint = endpoint_of(self._options)
                client = self._credentials.client("s3", keys, endpoint_url=endpoint, s3={"addressing_style": style})
                self._made = keys, client
            return self._made[1]

    def lock(self, key: str, until: datetime) -> None:
        """Lock the newest version in compliance mode until then or longer. See `Transport.lock`."""
        with told(f"lock {key} in {self._place}"):
            locked = self._locked_until(key)
            if locked is not None and locked >= until:
                return
            whole = until.replace(microsecond=0) + timedelta(seconds=until.microsecond > 0)  # stores keep seconds
            retention = {"Mode": "COMPLIANCE", "RetainUntilDate": whole}
            try:
                self.client().put_object_retention(Bucket=self._options.bucket, Key=key, Retention=retention)
            except self.client().exceptions.ClientError as error:
                answer = refusal(error)
                if answer is not None and answer.code in _NO_LOCKS:
                    raise self._no_locks(key) from None
                locked = self._locked_until(key)
                if locked is None or locked < until:  # else somebody was faster
                    raise

    def need_unlocked(self, key: str) -> None:
        """Raise `Locked` if the newest version of an object, which may be there or not, is locked now."""
        with suppress(NotFound), told(f"ask for the lock of {key} in {self._place}"):
            self._need_over(key, self._locked_until(key))

    def delete(self, key: str) -> None:
        """Delete all versions of an object, so that its space is free again; the oldest first.

        Were a newer one deleted first and an older one locked, the older would come to light. Raises `Locked`.
        """
        with told(f"delete {key} in {self._place}"):
            for version in reversed(list(self._versions(key))):
                try:
                    self.client().delete_object(Bucket=self._options.bucket, Key=key, VersionId=version)
                except self.client().exceptions.ClientError as error:
                    answer = refusal(error)
                    if answer is not None and answer.status == 403:
                        self._raise_if_locked(key, version)
                    raise

    def sweep(self, prefix: str) -> None:
        """Abort the uploads in parts that dead processes left below a prefix: they cost space and are not listed."""
        oldest = clock.now() - _ABANDONED
        with told(f"look for abandoned uploads in {self._place}"):
            pages = self.client().get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._options.bucket, Prefix=prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] < oldest:
                        key, number = upload["Key"], upload["UploadId"]
                        self.client().abort_multipart_upload(Bucket=self._options.bucket, Key=key, UploadId=number)

    def locks(self) -> tuple[bool, bool, bool]:
        """Whether the bucket has object locks, whether it locks all by itself, and whether it keeps versions."""
        with told(f"ask for the locks and versions of {self._place}"):
            versions = self.client().get_bucket_versioning(Bucket=self._options.bucket).get("Status") == "Enabled"
            try:
                answer = self.client().get_object_lock_configuration(Bucket=self._options.bucket)
            except self.client().exceptions.ClientError as error:
                found = refusal(error)
                if found is None or (found.code not in _NO_LOCKS and found.status != 404):
                    raise
                return False, False, versions
            configuration = answer["ObjectLockConfiguration"]
            return configuration.get("ObjectLockEnabled") == "Enabled", "Rule" in configuration, versions

    def skew(self) -> float | None:
        """Return by how many seconds the clocks of this machine and of the store differ; None if it does not tell."""
        with told(f"ask for the time of {self._place}"):
            answer = self.client().head_bucket(Bucket=self._options.bucket)
        try:
            theirs = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
        except ValueError:
            return None
        return abs((clock.now() - theirs.replace(tzinfo=UTC)).total_seconds())  # RFC 9110: always GMT

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made[1].close()

    def _versions(self, key: str) -> Iterator[str]:
        """Yield the versions of a key, markers of deletion among them, the newest first."""
        pages = self.client().get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self._options.bucket, Prefix=key):
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            ours = [version for version in found if version["Key"] == key]
            ours.sort(key=lambda version: version["LastModified"], reverse=True)
            yield from (version["VersionId"] for version in ours)
            if any(version["Key"] > key for version in found):
                return

    def _locked_until(self, key: str, **version: str) -> datetime | None:
        """Return how long a version is locked by itself; None if it is not. Raises `NotFound`."""
        try:
            answer = self.client().get_object_retention(Bucket=self._options.bucket, Key=key, **version)
        except self.client().exceptions.ClientError as error:
            found = refusal(error)
            if found is not None and found.code in _NO_LOCKS:
                raise self._no_locks(key) from None
            if found is not None and found.code in _NOT_LOCKED:
                return None
            raise
        retention = answer["Retention"]
        until: datetime = retention["RetainUntilDate"]
        return until if retention.get("Mode") == "COMPLIANCE" else None

    def _raise_if_locked(self, key: str, version: str) -> None:
        with suppress(AccessDenied, NotFound, Unsupported), told(f"ask for the lock of {key} in {self._place}"):
            self._need_over(key, self._locked_until(key, VersionId=version))

    def _need_over(self, key: str, until: datetime | None) -> None:
        if until is not None and until > clock.now():
            raise Locked(f"{key} in {self._place} is locked until {until.isoformat()}")

    def _no_locks(self, key: str) -> Unsupported:
        hint = "Object Lock is chosen when a bucket is made: make a new one with it, or remove `lock_days`"
        return Unsupported(f"cannot lock {key}: {self._place} was made without Object Lock", hint=hint)
