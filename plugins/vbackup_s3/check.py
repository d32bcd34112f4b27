"""What ``vbackup doctor`` wants to know about a bucket."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence

from vbackup.api import AccessDenied, AlreadyExists, Corrupt, Finding, Level, Unsupported, VBackupError
from vbackup_s3.bucket import Bucket
from vbackup_s3.options import S3Options
from vbackup_s3.versions import Versions

_SKEW_SECONDS = 300  # stores refuse those whose clock is 15 minutes off
_BODY = b"vbackup doctor"


def examine(options: S3Options, bucket: Bucket, versions: Versions) -> Sequence[Finding]:
    """Look at a bucket, and try on an object that no listing of ours shows what a backup does."""
    secrets_of = (options.secret_access_key, options.session_token)
    findings = [finding for secret in secrets_of if secret is not None for finding in secret.findings()]
    steps: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: _reachable(bucket),
        lambda: _clock(bucket.place, versions),
        lambda: _locks(options, bucket.place, versions),
        lambda: _objects(options, bucket, versions),
    )
    for step in steps:
        try:
            findings += step()
        except VBackupError as error:
            hint = error.hint or "look into the log of the store"
            findings.append(Finding(bucket.place, Level.ERROR, error.message, hint))
            break
    return findings


def _reachable(bucket: Bucket) -> Iterator[Finding]:
    next(bucket.list(limit=1), None)
    yield Finding(bucket.place, Level.OK, "it is there and can be listed")


def _clock(place: str, versions: Versions) -> Iterator[Finding]:
    seconds = versions.skew()
    if seconds is None:
        return
    detail = f"{seconds:.0f} s away from the store's"
    if seconds > _SKEW_SECONDS:
        yield Finding(f"clock against {place}", Level.WARNING, detail, "set the clock: the store soon refuses requests")
    else:
        yield Finding(f"clock against {place}", Level.OK, detail)


def _locks(options: S3Options, place: str, versions: Versions) -> Iterator[Finding]:
    what = f"object lock of {place}"
    try:
        locks, by_itself, keeps = versions.locks()
    except (AccessDenied, Unsupported) as error:
        level = Level.WARNING if options.object_lock else Level.OK
        yield Finding(what, level, f"cannot be asked for: {error.message}", error.hint if options.object_lock else "")
        return
    if options.object_lock and not locks:
        hint = "make a new bucket with it, or set `object_lock: false`"
        yield Finding(what, Level.ERROR, "the bucket was made without it", hint)
    elif by_itself:
        detail = "the bucket locks every object by itself: prune can remove nothing before that ends"
        yield Finding(what, Level.WARNING, detail, "remove the default retention of the bucket, and use `lock_days`")
    elif options.object_lock:
        yield Finding(what, Level.OK, "the bucket has it")
    elif keeps:
        detail = "the bucket keeps versions: what is deleted frees no space"
        hint = "set `object_lock: true`" if locks else "turn versioning off, or expire old versions by a lifecycle rule"
        yield Finding(what, Level.WARNING, detail, hint)


def _objects(options: S3Options, bucket: Bucket, versions: Versions) -> Iterator[Finding]:
    key = f".vbackup-doctor-{secrets.token_hex(8)}"
    bucket.put(key, memoryview(_BODY), create=False, storage_class=options.storage_class)
    try:
        if bucket.get(key, 0, None) != _BODY:
            raise Corrupt(f"{bucket.place} gives back other bytes than it was given")
        yield Finding(f"objects in {bucket.place}", Level.OK, "can be written and read")
        if options.conditional_put:
            yield _conditional_put(bucket, key)
    finally:
        yield _deleted(options, bucket, versions, key)


def _conditional_put(bucket: Bucket, key: str) -> Finding:
    what = f"conditional put to {bucket.place}"
    hint = "set `conditional_put: false`; vbackup then does without, which is slower and less certain in races"
    try:
        bucket.put(key, memoryview(_BODY), create=True, storage_class=None)
    except AlreadyExists:
        return Finding(what, Level.OK, "is enforced")
    except Unsupported as error:
        return Finding(what, Level.WARNING, error.message, hint)
    return Finding(what, Level.WARNING, "is taken and ignored", hint)


def _deleted(options: S3Options, bucket: Bucket, versions: Versions, key: str) -> Finding:
    what = f"deleting from {bucket.place}"
    try:
        if options.object_lock:
            versions.delete(f"{options.prefix}/{key}".lstrip("/"))
        else:
            bucket.delete(key)
    except VBackupError as error:
        hint = f"prune needs it; remove {key}. {error.hint}".rstrip()
        return Finding(what, Level.WARNING, error.message, hint)
    return Finding(what, Level.OK, "works")
