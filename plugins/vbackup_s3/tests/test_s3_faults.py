"""What stores and networks do to the transport ``s3``; between it and a real gateway stands somebody who does harm."""

from __future__ import annotations

import logging
import threading
import traceback

import pytest

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Level,
    Locked,
    NoSpace,
    NotFound,
    Unavailable,
    Unsupported,
    VBackupError,
)
from vbackup.wrappers.retry import RetryingTransport

from .conftest import opened, secret_file

MIB = 1 << 20


def once(method, harm):
    """Do it to the first request of that method."""
    done = threading.Event()

    def first(handler, asked):
        if done.is_set() or asked.method != method:
            return False
        done.set()
        harm(handler)
        handler.close_connection = True
        return True

    return first


def refusing(status, code, more="", **headers):
    def harm(handler, _asked):
        handler.refuse(status, code, more, **headers)
        return True

    return harm


def lose_the_answer(handler):
    handler.pass_on()


@pytest.fixture
def options(place, between):
    return place(endpoint=between.endpoint, timeout=2)


@pytest.fixture
def s3(options):
    return opened(options)


@pytest.mark.parametrize(
    ("status", "code", "kind", "transient"),
    [
        (503, "SlowDown", Unavailable, True),
        (429, "TooManyRequests", Unavailable, True),
        (503, "", Unavailable, True),
        (500, "InternalError", Unavailable, True),
        (408, "RequestTimeout", Unavailable, True),
        (409, "OperationAborted", Unavailable, True),
        (409, "ConditionalRequestConflict", Unavailable, True),
        (403, "RequestTimeTooSkewed", Unavailable, False),
        (301, "PermanentRedirect", Unavailable, False),
        (404, "NoSuchBucket", Unavailable, False),
        (403, "InvalidObjectState", Unavailable, False),
        (418, "SomethingElse", Unavailable, False),
        (400, "ExpiredToken", AccessDenied, False),
        (403, "SignatureDoesNotMatch", AccessDenied, False),
        (403, "InvalidAccessKeyId", AccessDenied, False),
        (403, "", AccessDenied, False),
        (403, "QuotaExceeded", NoSpace, False),
        (507, "XMinioStorageFull", NoSpace, False),
        (501, "NotImplemented", Unsupported, False),
    ],
)
def test_refusals(s3, between, status, code, kind, transient):
    """Each says what to do, also where the answer to HEAD has no code."""
    between.harm = refusing(status, code)
    actions = [
        lambda: s3.put("points/a", b"1"),
        lambda: s3.put("points/a", b"1", if_absent=True),
        lambda: s3.get("points/a"),
        lambda: s3.get("points/a", 3, 4),
        lambda: list(s3.list("points/a")),
        lambda: s3.delete("points/a"),
        lambda: s3.size("points/a"),
    ]
    for action in actions:
        with pytest.raises(kind, match="points/a") as caught:
            action()
        assert type(caught.value) is kind
        assert caught.value.transient is transient
        assert code in str(caught.value) or status == 301 or (transient and action is actions[-1])
        assert caught.value.hint or kind is Unavailable


def test_a_store_that_asks_to_slow_down_is_asked_again(options, between):
    """The job goes on, later."""
    left = iter(range(5))

    def busy(handler, _asked):
        if next(left, None) is None:
            return False
        handler.refuse(503, "SlowDown", Retry_After="1")
        return True

    between.harm = busy
    waits = []
    retrying = RetryingTransport(
        opened(options), 300, wait=lambda seconds: waits.append(seconds) or False, clock=lambda: sum(waits)
    )
    retrying.put("packs/a", b"1" * MIB)
    between.harm = lambda _handler, _asked: False
    assert retrying.get("packs/a") == b"1" * MIB
    assert len(waits) == 5
    assert waits[-1] > waits[0]


@pytest.mark.parametrize("size", [3, 5 * MIB])
def test_a_created_object_whose_answer_was_lost_is_ours(options, between, size):
    """The store has it, we were not told: the first attempt may be tried again, and meets its own success."""
    between.harm = once("PUT", lose_the_answer)
    with pytest.raises(Unavailable) as caught:
        opened(options).put("locks/a", b"1" * size, if_absent=True)
    assert caught.value.transient
    assert opened(options).get("locks/a") == b"1" * size
    between.harm = once("PUT", lose_the_answer)
    RetryingTransport(opened(options), 60, wait=lambda _: False).put("locks/b", b"2" * size, if_absent=True)
    with pytest.raises(AlreadyExists, match="locks/a"):
        opened(options).put("locks/a", b"2" * size, if_absent=True)


def test_nothing_is_tried_again_below_the_retries(s3, between):
    """Else a create-only put could meet its own success, and a store that is overloaded would be asked at once."""
    between.harm = refusing(503, "SlowDown")
    for action in (lambda: s3.put("a", b"1"), lambda: s3.put("a", b"1", if_absent=True), lambda: s3.get("a")):
        between.asked.clear()
        with pytest.raises(Unavailable):
            action()
        assert len(between.asked) == 1


@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_half_an_answer_is_never_taken_for_the_object(s3, between, size):
    s3.put("packs/a", bytes(size))

    def cut(handler):
        handler.answer(200, bytes(size // 2), Content_Length=str(size), ETag='"x"',
                       Last_Modified="Sun, 22 Nov 2026 20:00:00 GMT")  # fmt: skip

    between.harm = once("GET", cut)
    with pytest.raises(Unavailable) as caught:
        s3.get("packs/a")
    assert caught.value.transient
    assert s3.get("packs/a") == bytes(size)


def test_a_half_open_connection(s3, between):
    """The other side is gone and nobody told us: the next request on that connection ends all the same."""
    s3.put("packs/a", b"1")

    between.harm = once("GET", lambda handler: handler.between.over.wait(60))
    with pytest.raises(Unavailable) as caught:
        s3.get("packs/a")
    assert caught.value.transient
    assert "in time" in str(caught.value)
    assert s3.get("packs/a") == b"1"


def test_a_store_that_refuses_the_condition(s3, between):
    """Some answer 501: creating says what to configure, doctor warns, and all else works."""

    def harm(handler, asked):
        if "if-none-match" not in asked.headers:
            return False
        handler.refuse(501, "NotImplemented")
        return True

    between.harm = harm
    with pytest.raises(Unsupported, match="locks/a") as caught:
        s3.put("locks/a", b"1", if_absent=True)
    assert "conditional_put: false" in caught.value.hint
    s3.put("locks/a", b"1")
    (warning,) = [finding for finding in s3.check() if finding.level is not Level.OK]
    assert warning.level is Level.WARNING
    assert "conditional" in warning.what


def test_a_store_without_the_condition_is_not_asked(options, between):
    s3 = opened(options, conditional_put=False)
    assert not s3.can_put_if_absent
    with pytest.raises(Unsupported, match="locks/a"):
        s3.put("locks/a", b"1", if_absent=True)
    assert between.asked == []
    assert not [finding for finding in s3.check() if finding.level is not Level.OK]


def test_the_body_is_not_hashed_and_never_sent_in_parts(s3, between):
    s3.put("packs/a", bytes(40 * MIB))
    (asked,) = between.asked
    assert asked.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert asked.headers["content-length"] == str(40 * MIB)


def test_an_upload_in_parts_that_fails_leaves_nothing(options, between, radosgw):
    def harm(handler, asked):
        if "partNumber=2" not in asked.path:
            return False
        handler.refuse(503, "SlowDown")
        return True

    between.harm = harm
    with pytest.raises(Unavailable) as caught:
        opened(options).put("image", bytes(65 * MIB))
    assert caught.value.transient
    assert not radosgw.client().list_multipart_uploads(Bucket=options["bucket"]).get("Uploads")
    with pytest.raises(NotFound):
        opened(options).get("image")


def test_the_storage_class_is_of_packs_only(options, between):
    s3 = opened(options, storage_class="STANDARD_IA", sse={"type": "AES256"})
    between.harm = lambda handler, _asked: handler.answer(200, ETag='"x"') or True
    for key in ("packs/00/a", "index/a", "repository", "packs-of-others/a"):
        s3.put(key, b"1")
    assert [asked.headers.get("x-amz-storage-class") for asked in between.asked] == ["STANDARD_IA", None, None, None]
    assert {asked.headers.get("x-amz-server-side-encryption") for asked in between.asked} == {"AES256"}


def test_a_listing_is_one_request_whoever_stands_beside_it(s3, between):
    """What comes after the prefix ends the listing; what comes before it may be many, so the prefix is asked for."""
    for key in ("points/a", "points/b", "pointsmen/c"):
        s3.put(key, b"1")
    between.asked.clear()
    assert [info.key for info in s3.list("points")] == ["points/a", "points/b"]
    assert len(between.asked) == 1
    s3.put("points-old/c", b"1")
    s3.put("points", b"1")
    between.asked.clear()
    assert [info.key for info in s3.list("points")] == ["points", "points/a", "points/b"]
    assert len(between.asked) == 2


def test_a_listing_that_breaks_on_its_second_page_is_an_error(s3, between):
    for number in range(3):
        s3.put(f"packs/{number}", b"1")

    def harm(handler, asked):
        if "list-type=2" not in asked.path:
            return False
        if "continuation-token" in asked.path:
            handler.refuse(503, "SlowDown")
        else:
            handler.path += "&max-keys=2"  # the signature does not matter: the answer is ours
            contents = "".join(
                f"<Contents><Key>packs/{number}</Key><Size>1</Size><LastModified>2026-11-22T20:00:00.000Z</LastModified>"
                f"<ETag>x</ETag></Contents>" for number in range(2)
            )  # fmt: skip
            more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
            handler.answer(200, f"<ListBucketResult>{more}{contents}</ListBucketResult>".encode())
        return True

    between.harm = harm
    with pytest.raises(Unavailable) as caught:
        list(s3.list("packs"))
    assert caught.value.transient


def test_secrets_are_not_told(place, between, tmp_path, caplog):
    """Not by what represents the transport, not in errors, tracebacks or logs; not even if the store repeats them."""
    caplog.set_level(logging.DEBUG)
    key, token = "the-secret-key-itself", "the-session-token-itself"
    s3 = opened(
        place(endpoint=between.endpoint),
        secret_access_key=secret_file(tmp_path / "key", key),
        session_token=secret_file(tmp_path / "token", token),
    )
    said = [repr(s3), repr(vars(s3)), str(s3.options)]
    more = f"<Token-0>{token}</Token-0><StringToSign>{key}</StringToSign>"
    for status, code in ((400, "ExpiredToken"), (403, "SignatureDoesNotMatch"), (503, "SlowDown"), (418, "New")):
        between.harm = refusing(status, code, more)
        for action in (lambda: s3.put("a", b""), lambda: s3.get("a"), lambda: list(s3.list()), lambda: s3.delete("a")):
            with pytest.raises(VBackupError) as caught:
                action()
            said += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
        said += [str(s3.check())]
    assert any(asked.headers.get("x-amz-security-token") == token for asked in between.asked)
    said += [record.getMessage() for record in caplog.records]
    assert not [text for text in said if key in text or token in text]


def test_locks_ask_and_tell_like_the_rest(place, between):
    """What goes through the other library has the same errors."""
    s3 = opened(place(lock=True, endpoint=between.endpoint, timeout=2))
    s3.put("points/a", b"1")
    from vbackup.api import clock

    for status, code, kind, transient in (
        (503, "SlowDown", Unavailable, True),
        (403, "AccessDenied", AccessDenied, False),
        (404, "NoSuchBucket", Unavailable, False),
        (404, "NoSuchKey", NotFound, False),
    ):
        between.harm = refusing(status, code)
        with pytest.raises(kind, match="points/a") as caught:
            s3.lock("points/a", clock.now())
        assert caught.value.transient is transient
        if kind is not NotFound:
            with pytest.raises(kind, match="points/a") as caught:
                s3.delete("points/a")
            assert not isinstance(caught.value, Locked)
