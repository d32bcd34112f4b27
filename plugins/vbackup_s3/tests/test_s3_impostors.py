"""What answers in the place of a store is never believed: pages, redirects, listings that are none or not whole."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from html import escape

import pytest
from pydantic import ValidationError

from vbackup.api import AccessDenied, ConfigError, NotFound, ObjectInfo, Unavailable, Unsupported, clock
from vbackup_s3.options import S3Options

from .between import Between
from .conftest import opened, secret_file

MIB = 1 << 20
PAGE = b"<html>hello</html>"
NAMED = "<Name>bucket</Name>"
WHOLE = f"{NAMED}<IsTruncated>false</IsTruncated>"
MORE = f"{NAMED}<IsTruncated>true</IsTruncated>"
TOKEN = "<NextContinuationToken>t</NextContinuationToken>"


@pytest.fixture
def fake():
    """Return a server with nothing behind it."""
    with Between("http://127.0.0.1:1") as server:
        yield server


@pytest.fixture
def options(fake, tmp_path):
    secret = secret_file(tmp_path / "key", "secret")
    return {
        "bucket": "bucket", "endpoint": fake.endpoint, "access_key_id": "a", "secret_access_key": secret, "timeout": 2
    }  # fmt: skip


@pytest.fixture
def s3(options):
    return opened(options)


def answering(status, body=b"", **headers):
    def harm(handler, _asked):
        handler.answer(status, body, **headers)
        return True

    return harm


def answers_of_listing(*pages):
    """Answer the pages one after the other, and the last one for ever."""
    left = list(pages)

    def harm(handler, asked):
        if "max-keys=1&" in asked.path or asked.path.endswith("max-keys=1"):  # for the object with just that name
            handler.answer(200, f"<ListBucketResult>{WHOLE}</ListBucketResult>".encode())
        else:
            page = left.pop(0) if len(left) > 1 else left[0]
            handler.answer(
                200, page if isinstance(page, bytes) else f"<ListBucketResult>{page}</ListBucketResult>".encode()
            )
        return True

    return harm


def of(*keys):
    return "".join(f"<Contents><Key>{escape(key)}</Key><Size>1</Size></Contents>" for key in keys)


def every_action(s3):
    return {
        "put": lambda: s3.put("packs/a", b"1"),
        "put in parts": lambda: s3.put("packs/a", bytes(65 * MIB)),
        "get": lambda: s3.get("packs/a"),
        "part": lambda: s3.get("packs/a", 1, 2),
        "list": lambda: list(s3.list("packs")),
        "list all": lambda: list(s3.list()),
        "delete": lambda: s3.delete("packs/a"),
        "size": lambda: s3.size("packs/a"),
        "create": s3.create,
    }


# Listing


@pytest.mark.parametrize(
    "page",
    [PAGE, b"hello", b"", "", NAMED, "<IsTruncated>false</IsTruncated>", b"<Error><Code>InternalError</Code></Error>",
     b"<ListBucketResult>" + WHOLE.encode()],
)  # fmt: skip
def test_what_is_no_listing_lists_nothing_less(s3, fake, page):
    fake.harm = answers_of_listing(page)
    for prefix in ("packs", ""):
        with pytest.raises(Unavailable) as caught:
            list(s3.list(prefix))
        assert caught.value.transient


@pytest.mark.parametrize(
    "pages",
    [
        [MORE + TOKEN + of("packs/a"), PAGE],
        [MORE + TOKEN + of("packs/a"), MORE + TOKEN + of("packs/b")],
        [MORE + TOKEN + of("packs/a"), WHOLE + of("packs/a")],
        [WHOLE + of("packs/a", "packs/a")],
        [WHOLE + of("packs/b", "packs/a")],
        [WHOLE + of("other/a")],
        [WHOLE + "<Contents><Key>packs/a</Key></Contents>"],
        [WHOLE + "<Contents><Size>1</Size></Contents>"],
    ],
)
def test_a_listing_that_does_not_go_on_is_an_error(s3, fake, pages):
    fake.harm = answers_of_listing(*pages)
    with pytest.raises(Unavailable, match="bucket") as caught:
        list(s3.list("packs"))
    assert caught.value.transient


def test_a_store_with_the_first_version_of_listing_only(s3, fake):
    fake.harm = answers_of_listing(MORE + "<NextMarker>packs/a</NextMarker>" + of("packs/a"))
    with pytest.raises(Unsupported, match="ListObjects"):
        list(s3.list("packs"))


def test_pages_are_joined(s3, fake):
    """In the order of UTF-8, in which U+FF41 comes before U+10000, other than in that of UTF-16."""
    fake.harm = answers_of_listing(
        MORE + TOKEN + of("packs/A b", "packs/a"), WHOLE + of("packs/b", "packs/\uff41", "packs/\U00010000")
    )
    assert list(s3.list("packs")) == [ObjectInfo("packs/a", 1), ObjectInfo("packs/b", 1)]


# Pages, 404 and redirects


@pytest.mark.parametrize("body", [PAGE, b"", b"<Error><Code>Other</Code></Error>"])
def test_not_every_404_is_an_object_that_is_not_there(s3, fake, body):
    fake.harm = answering(404, body, ETag='"x"')
    for name, action in every_action(s3).items():
        with pytest.raises(Unavailable) as caught:
            action()
        assert caught.value.transient, name


def test_a_404_of_the_store_is(s3, fake):
    fake.harm = answering(404, b"<Error><Code>NoSuchKey</Code></Error>")
    for action in (lambda: s3.get("packs/a"), lambda: s3.size("packs/a"), lambda: s3.get("packs/a", 0, 0)):
        with pytest.raises(NotFound):
            action()
    s3.delete("packs/a")


@pytest.mark.parametrize("tag", [{}, {"ETag": '"x"', "Last_Modified": "Sun, 22 Nov 2026 20:00:00 GMT"}])
def test_a_page_is_no_answer(s3, fake, tag):
    fake.harm = answering(200, PAGE, Content_Type="text/html", **tag)
    actions = every_action(s3)
    if tag:  # nothing tells these from a store's
        del actions["put"], actions["size"]
    for name, action in actions.items():
        with pytest.raises(Unavailable) as caught:
            action()
        assert caught.value.transient or name.startswith(("put", "size")), name


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_taken_for_answers(s3, fake, status):
    def harm(handler, asked):
        if asked.path == "/login":
            tags = {"ETag": '"x"', "Last_Modified": "Sun, 22 Nov 2026 20:00:00 GMT"}
            handler.answer(200, PAGE, Content_Type="text/html", **tags)
        else:
            handler.answer(status, Location="/login")
        return True

    fake.harm = harm
    actions = every_action(s3)
    if status == 303:  # obstore follows it, as the manual says
        del actions["put"]
    for action in actions.values():
        with pytest.raises(Unavailable):
            action()


# Statuses


@pytest.mark.parametrize(
    ("status", "transient"), [(508, True), (509, True), (520, True), (530, True), (598, True), (505, False)]
)
def test_what_proxies_answer_when_the_store_is_away(s3, fake, status, transient):
    fake.harm = answering(status, PAGE)
    for action in (lambda: s3.put("packs/a", b"1"), lambda: s3.get("packs/a"), lambda: s3.delete("packs/a")):
        with pytest.raises(Unavailable) as caught:
            action()
        assert caught.value.transient is transient


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (429, "")])
def test_a_store_that_is_overloaded_is_left_alone_by_all(s3, fake, status, code):
    body = f"<Error><Code>{code}</Code></Error>".encode()
    fake.harm = answering(status, body, Retry_After="7")
    for action, seconds in ((lambda: s3.put("packs/a", b"1"), 2), (lambda: s3.get("packs/a"), 2), (s3.create, 7)):
        with pytest.raises(Unavailable) as caught:
            action()
        assert caught.value.retry_after == seconds
    fake.harm = answering(500, b"<Error><Code>InternalError</Code></Error>")
    with pytest.raises(Unavailable) as caught:
        s3.get("packs/a")
    assert caught.value.retry_after is None


def test_an_answer_about_locks_that_says_nothing(options, fake):
    s3 = opened(options, object_lock=True)
    fake.harm = answering(200, b"<Retention></Retention>")
    with pytest.raises(Unavailable, match="no date"):
        s3.lock("points/a", clock.now())
    with pytest.raises(Unavailable, match="no listing"):
        s3.delete("points/a")


# What cannot be sent


@pytest.mark.parametrize(
    "wrong",
    [{"access_key_id": "a\nb", "secret_access_key": {"env": "A"}}, {"region": "eu\nx"}, {"region": ""}, {"region": "ü"},
     {"sse": {"type": "aws:kms", "kms_key_id": "a\nb"}}],
)  # fmt: skip
def test_options_that_cannot_be_sent_are_refused(wrong):
    with pytest.raises(ValidationError):
        S3Options.model_validate({"bucket": "bucket"} | wrong)


@pytest.mark.parametrize("name", ["secret_access_key", "session_token"])
def test_secrets_that_cannot_be_sent_are_refused_and_not_told(options, fake, tmp_path, name):
    s3 = opened(options | {name: secret_file(tmp_path / "wrong", "hidden\nhidden")})
    for action in every_action(s3).values():
        with pytest.raises(AccessDenied, match="cannot be sent") as caught:
            action()
        assert "hidden" not in str(caught.value)
    assert fake.asked == []


def test_settings_that_cannot_be_sent_are_refused_and_not_told(options, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu\nx")
    with pytest.raises(ConfigError, match="region"):
        opened(options).get("a")
    monkeypatch.delenv("AWS_REGION")
    for name in ("access_key_id", "secret_access_key"):
        del options[name]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hidden\nhidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with pytest.raises(AccessDenied, match="cannot be sent") as caught:
        opened(options).get("a")
    assert "hidden" not in str(caught.value)


# Waiting


@pytest.mark.parametrize(
    ("size", "seconds"), [(MIB // 4, "3s"), (MIB // 4 + 1, "6s"), (4 * MIB, "18s"), (17 * MIB, "4m 18s")]
)
def test_how_long_an_answer_may_take_depends_on_the_size(options, size, seconds):
    assert opened(options)._bucket._store(size).client_options["read_timeout"] == seconds


def test_who_waited_for_credentials_that_did_not_come_fails_too(options, fake):
    """Each of them would wait as long again, one after the other."""
    s3 = opened(options, role_arn="arn:aws:iam:::role/x")
    asked, go_on = threading.Event(), threading.Event()

    def harm(handler, _asked):
        asked.set()
        go_on.wait(60)
        handler.answer(503)
        return True

    fake.harm = harm
    credentials = s3._credentials
    begun = threading.Semaphore(0)

    class Begun:
        """Tells who has come to the lock."""

        def __enter__(self):
            begun.release()
            return lock.__enter__()

        def __exit__(self, *exc):
            return lock.__exit__(*exc)

    lock, credentials._lock = credentials._lock, Begun()
    with ThreadPoolExecutor(6) as pool:
        gets = [pool.submit(s3.get, "packs/a") for _ in range(6)]
        asked.wait(60)
        for _ in range(len(gets) + 1):  # who asks takes the lock once more to make its client
            begun.acquire()
        go_on.set()
        for get in gets:
            with pytest.raises(Unavailable, match="credentials"):
                get.result()
    assert len(fake.asked) == 1
    with pytest.raises(Unavailable, match="credentials"):
        s3.get("packs/a")
    assert len(fake.asked) == 2


# Versions


def test_what_was_deleted_does_not_come_back_in_between(options, fake):
    """The marker of deletion goes last, also if it is as old as what it hides: times are of whole seconds."""
    when = "<LastModified>2026-11-22T20:00:00.000Z</LastModified>"

    def version(name, number, *, latest):
        said = f"<Key>points/a</Key><VersionId>{number}</VersionId><IsLatest>{latest}</IsLatest>"
        return f"<{name}>{said}{when}</{name}>"

    page = (
        version("DeleteMarker", "marker", latest="true")
        + version("Version", "new", latest="false")
        + version("Version", "old", latest="false")
    )

    def harm(handler, asked):
        if asked.method == "DELETE":
            handler.answer(204)
        else:
            handler.answer(200, f"<ListVersionsResult>{WHOLE}{page}</ListVersionsResult>".encode())
        return True

    fake.harm = harm
    opened(options, object_lock=True).delete("points/a")
    deleted = [asked.path.partition("versionId=")[2] for asked in fake.asked if asked.method == "DELETE"]
    assert deleted == ["old", "new", "marker"]
