"""Locks, versions, and what broken uploads left. Few and small requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from vbackup.api import AccessDenied, Locked, NotFound, Unavailable, Unsupported, clock
from vbackup_s3.failures import refusal, told
from vbackup_s3.listing import need_listing
from vbackup_s3.options import S3Options
from vbackup_s3.service import Service

_NO_LOCKS = {"InvalidRequest", "InvalidBucketState", "NotImplemented"}
_NOT_LOCKED = {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"}
_CLOCKS_DIFFER = timedelta(minutes=1)
_ABANDONED = timedelta(days=1)


class Versions:
    """The versions of objects in a bucket, by their full keys; ``place`` names the bucket in messages."""

    def __init__(self, options: S3Options, service: Service, place: str) -> None:
        self._options = options
        self._service = service
        self._place = place

    def lock(self, key: str, until: datetime) -> None:
        """Lock the newest version in compliance mode until then or longer. See `Transport.lock`."""
        with told(f"lock {key} in {self._place}"):
            locked = self._locked_until(key)
            if locked is not None and locked >= until:
                return
            whole = until.replace(microsecond=0) + timedelta(seconds=until.microsecond > 0)  # stores keep seconds
            retention = {"Mode": "COMPLIANCE", "RetainUntilDate": whole}
            try:
                self._service.client().put_object_retention(Bucket=self._options.bucket, Key=key, Retention=retention)
            except self._service.client().exceptions.ClientError as error:
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
                    self._service.client().delete_object(Bucket=self._options.bucket, Key=key, VersionId=version)
                except self._service.client().exceptions.ClientError as error:
                    answer = refusal(error)
                    if answer is not None and answer.status == 403:
                        self._raise_if_locked(key, version)
                    raise

    def sweep(self, prefix: str) -> None:
        """Abort the uploads in parts that dead processes left below a prefix: they cost space and are not listed."""
        oldest = clock.now() - _ABANDONED
        with told(f"look for abandoned uploads in {self._place}"):
            pages = self._service.client().get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._options.bucket, Prefix=prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] < oldest:
                        key, number = upload["Key"], upload["UploadId"]
                        self._service.client().abort_multipart_upload(
                            Bucket=self._options.bucket, Key=key, UploadId=number
                        )

    def locks(self) -> tuple[bool, bool, bool]:
        """Whether the bucket has object locks, whether it locks all by itself, and whether it keeps versions."""
        with told(f"ask for the locks and versions of {self._place}"):
            versions = (
                self._service.client().get_bucket_versioning(Bucket=self._options.bucket).get("Status") == "Enabled"
            )
            try:
                answer = self._service.client().get_object_lock_configuration(Bucket=self._options.bucket)
            except self._service.client().exceptions.ClientError as error:
                found = refusal(error)
                if found is None or found.code not in _NO_LOCKS | _NOT_LOCKED:
                    raise
                return False, False, versions
            configuration = answer.get("ObjectLockConfiguration", {})
            return configuration.get("ObjectLockEnabled") == "Enabled", "Rule" in configuration, versions

    def skew(self) -> float | None:
        """Return by how many seconds the clocks of this machine and of the store differ; None if it does not tell."""
        with told(f"ask for the time of {self._place}"):
            answer = self._service.client().head_bucket(Bucket=self._options.bucket)
        try:
            theirs = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
        except ValueError:
            return None
        return abs((clock.now() - theirs.replace(tzinfo=UTC)).total_seconds())  # RFC 9110: always GMT

    def _versions(self, key: str) -> Iterator[str]:
        """Yield the versions of a key, markers of deletion among them, the newest first.

        Times are of whole seconds, so which is the newest of all is taken from the store's word for it.
        """
        pages = self._service.client().get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self._options.bucket, Prefix=key):
            need_listing(page, self._options.bucket)
            found = [*page.get("DeleteMarkers", ()), *page.get("Versions", ())]
            ours = [version for version in found if version["Key"] == key]
            ours.sort(key=lambda version: (version["IsLatest"], version["LastModified"]), reverse=True)
            yield from (version["VersionId"] for version in ours)
            if any(version["Key"] > key for version in found):
                return

    def _locked_until(self, key: str, **version: str) -> datetime | None:
        """Return how long a version is locked by itself; None if it is not. Raises `NotFound`."""
        try:
            answer = self._service.client().get_object_retention(Bucket=self._options.bucket, Key=key, **version)
        except self._service.client().exceptions.ClientError as error:
            found = refusal(error)
            if found is not None and found.code in _NO_LOCKS:
                raise self._no_locks(key) from None
            if found is not None and found.code in _NOT_LOCKED:
                return None
            raise
        retention = answer.get("Retention", {})
        until: datetime | None = retention.get("RetainUntilDate")
        if until is None:
            raise Unavailable(f"cannot ask for the lock of {key} in {self._place}: the answer has no date")
        return until if retention.get("Mode") == "COMPLIANCE" else None

    def _raise_if_locked(self, key: str, version: str) -> None:
        """Raise `Locked` if the store has refused for a lock, which may have ended since, or by our clock before."""
        with suppress(AccessDenied, NotFound, Unsupported), told(f"ask for the lock of {key} in {self._place}"):
            self._need_over(key, self._locked_until(key, VersionId=version), _CLOCKS_DIFFER)

    def _need_over(self, key: str, until: datetime | None, margin: timedelta = timedelta(0)) -> None:
        if until is not None and until > clock.now() - margin:
            raise Locked(f"{key} in {self._place} is locked until {until.isoformat()}")

    def _no_locks(self, key: str) -> Unsupported:
        hint = "Object Lock is chosen when a bucket is made: make a new one with it, or remove `lock_days`"
        return Unsupported(f"cannot lock {key}: {self._place} was made without Object Lock", hint=hint)
