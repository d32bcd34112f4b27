"""What is special about buckets, on a real Ceph gateway: versions, locks, credentials, certificates, other objects."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from tests.servers.daemon import Daemons
from tests.servers.radosgw import Radosgw
from vbackup.api import (
    AccessDenied,
    ConfigError,
    Level,
    Locked,
    NotFound,
    ObjectInfo,
    Unavailable,
    Unsupported,
    clock,
)
from vbackup.repository.founding import refuses_second_put
from vbackup.wrappers.retry import RetryingTransport
from vbackup_s3.options import S3Options

from .conftest import opened, restricted, secret_file

MIB = 1 << 20


def worst(transport):
    """Return the findings of doctor that are not fine."""
    return [finding for finding in transport.check() if finding.level is not Level.OK]


def later(monkeypatch, by):
    """Turn the clock of this process forward."""
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + by)


# Options


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"endpoint": "localhost:9000"}, "http://host"),
        ({"endpoint": "ftp://host"}, "http://host"),
        ({"endpoint": "http://[nonsense"}, "endpoint"),
        ({"endpoint": "http://host:99999"}, "endpoint"),
        ({"endpoint": "http://user:secret@host"}, "user"),
        ({"endpoint": "http://host?x=1"}, "query"),
        ({"endpoint": "http://a b"}, "http://host"),
        ({"endpoint": "http://a..b"}, "http://host"),
        ({"endpoint": "http://300.1.1.1"}, "http://host"),
        ({"endpoint": "http://host.5"}, "http://host"),
        ({"endpoint": "http://0x7f"}, "http://host"),
        ({"bucket": "x"}, "bucket"),
        ({"bucket": "a/b"}, "bucket"),
        ({"prefix": "a//b"}, "prefix"),
        ({"prefix": "../b"}, "prefix"),
        ({"access_key_id": "a"}, "go together"),
        ({"secret_access_key": {"env": "A"}}, "go together"),
        ({"secret_access_key": "the-secret-itself", "access_key_id": "a"}, "where the secret is"),
        ({"session_token": {"env": "A"}}, "session_token"),
        ({"external_id": "a"}, "role_arn"),
        ({"profile": "p", "access_key_id": "a", "secret_access_key": {"env": "A"}}, "either"),
        ({"sse": {"type": "AES256", "kms_key_id": "k"}}, "kms_key_id"),
        ({"sse": {"type": "none"}}, "sse"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(wrong, says):
    with pytest.raises(ValidationError, match=says):
        S3Options.model_validate({"bucket": "bucket"} | wrong)


@pytest.mark.parametrize("host", ["a_b", "a-b.c", "A.B", "1.2.3.x", "[::1]", "127.0.0.1:1", "localhost:1/some/path/"])
@pytest.mark.parametrize("path_style", [True, False])
def test_endpoints_that_can_be_meant(host, path_style, monkeypatch):
    """None of them makes obstore panic, which nobody could catch."""
    monkeypatch.setenv("SECRET", "x")
    options = {"bucket": "bucket.x", "access_key_id": "a", "secret_access_key": {"env": "SECRET"}, "timeout": 1}
    with pytest.raises((Unavailable, ConfigError)) as caught:
        opened(options, endpoint=f"http://{host}", path_style=path_style).get("a")
    assert caught.type is Unavailable or not path_style


# Objects


def test_larger_objects_than_packs_go_over_in_parts(place):
    s3 = opened(place())
    data = bytes(range(256)) * (MIB // 256) * 70
    s3.put("image", data)
    assert s3.size("image") == len(data)
    assert s3.get("image") == data


def test_uploads_in_parts_that_died_are_aborted_a_day_later(place, radosgw, monkeypatch):
    options = place(prefix="ours")
    client = radosgw.client()
    for key in ("ours/packs/dead", "ours/other", "theirs/packs/dead"):
        client.create_multipart_upload(Bucket=options["bucket"], Key=key)

    def uploads():
        return [found["Key"] for found in client.list_multipart_uploads(Bucket=options["bucket"]).get("Uploads", ())]

    opened(options).put("packs/a", bytes(65 * MIB))
    assert uploads() == ["ours/other", "ours/packs/dead", "theirs/packs/dead"]
    later(monkeypatch, timedelta(hours=25))
    opened(options).put("packs/a", bytes(65 * MIB))
    assert uploads() == ["ours/other", "theirs/packs/dead"]


@pytest.mark.parametrize("prefix", ["", "some/prefix"])
def test_what_cannot_be_an_object_is_not_listed(place, radosgw, prefix):
    options = place(prefix=prefix)
    s3 = opened(options)
    at = f"{prefix}/" if prefix else ""
    s3.put("a/b", b"1")
    s3.put("a/empty", b"")
    s3.put("z", b"1")
    for foreign in ("UPPER", "a/", "a/b c", "a/é", "folder/", "z/", "%2e", "a/b.txt", "x" * 129):
        radosgw.client().put_object(Bucket=options["bucket"], Key=at + foreign, Body=b"")
    radosgw.client().put_object(Bucket=options["bucket"], Key="some/prefix-of-others/a", Body=b"foreign")
    expected = [ObjectInfo("a/b", 1), ObjectInfo("a/empty", 0), ObjectInfo("z", 1)]
    found = sorted(s3.list())
    assert [info for info in found if not info.key.startswith("some/")] == expected
    assert sorted(s3.list("a")) == expected[:2]


@pytest.mark.parametrize("foreign", ["../a", "./a", "x//y", "%61b", "\uff41", "\U00010000"])
def test_a_foreign_object_with_an_odd_name_does_no_harm(place, radosgw, foreign):
    options = place(prefix="ours")
    opened(options).put("a", b"1")
    radosgw.client().put_object(Bucket=options["bucket"], Key=f"ours/{foreign}", Body=b"")
    assert list(opened(options).list()) == [ObjectInfo("a", 1)]


def test_a_bucket_is_never_made(place, radosgw):
    options = place(bucket="not-there-yet")
    with pytest.raises(Unavailable, match="not-there-yet") as caught:
        opened(options).create()
    assert not caught.value.transient
    assert "makes none" in caught.value.hint
    assert "not-there-yet" not in {bucket["Name"] for bucket in radosgw.client().list_buckets()["Buckets"]}


def test_encryption_by_the_keys_of_the_store(place, radosgw):
    options = place(sse={"type": "aws:kms", "kms_key_id": "vbackup-test"})
    opened(options).put("a", b"1")
    assert opened(options).get("a") == b"1"
    head = radosgw.client().head_object(Bucket=options["bucket"], Key="a")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "vbackup-test")


# Conditional put


def test_a_bucket_that_ignores_the_condition_is_found_out(place):
    """This gateway does so where there are versions."""
    s3 = opened(place(lock=True))
    s3.put("keys/a", b"1")
    assert not refuses_second_put(s3, "keys/a", b"1")
    assert "conditional put" in worst(s3)[0].what
    good = opened(place())
    good.put("keys/a", b"1")
    assert refuses_second_put(good, "keys/a", b"1")
    assert worst(good) == []


# Locks and versions


def versions(radosgw, options):
    answer = radosgw.client().list_object_versions(Bucket=options["bucket"])
    return len(answer.get("Versions", ())) + len(answer.get("DeleteMarkers", ()))


def test_what_is_deleted_frees_its_space(place, radosgw):
    """All versions go and no marker stays; but not those of a longer name."""
    options = place(lock=True, prefix="here")
    s3 = opened(options)
    s3.put("packs/ab", b"other")
    for data in (b"1", b"2", b"3"):
        s3.put("packs/a", data)
    radosgw.client().delete_object(Bucket=options["bucket"], Key="here/packs/a")
    s3.delete("packs/a")
    assert versions(radosgw, options) == 1
    assert list(s3.list()) == [ObjectInfo("packs/ab", 5)]
    s3.delete("packs/ab")
    s3.delete("packs/ab")
    assert versions(radosgw, options) == 0


def test_a_locked_version_under_others_keeps_them_all(place, radosgw):
    """Who may write can hide a locked object, not delete it: a newer version is removed, and it is back."""
    options = place(lock=True)
    s3 = opened(options)
    s3.put("points/a", b"kept")
    s3.lock("points/a", clock.now() + timedelta(hours=1))
    hidden = radosgw.client().put_object(Bucket=options["bucket"], Key="points/a", Body=b"hides it")
    with pytest.raises(Locked, match="points/a"):
        s3.delete("points/a")
    assert s3.get("points/a") == b"hides it"
    radosgw.client().delete_object(Bucket=options["bucket"], Key="points/a", VersionId=hidden["VersionId"])
    assert s3.get("points/a") == b"kept"


def test_a_bucket_without_locks(place):
    s3 = opened(place(object_lock=True))
    s3.put("points/a", b"1")
    with pytest.raises(Unsupported, match="points/a") as caught:
        s3.lock("points/a", clock.now() + timedelta(hours=1))
    assert "new" in caught.value.hint
    assert [finding.level for finding in worst(s3)] == [Level.ERROR]
    s3.delete("points/a")
    assert list(s3.list()) == []


def test_doctor_tells_of_versions_that_are_not_used(place, radosgw):
    warnings = {finding.hint for finding in worst(opened(place(lock=True) | {"object_lock": False}))}
    assert "set `object_lock: true`" in warnings
    options = place()
    radosgw.client().put_bucket_versioning(Bucket=options["bucket"], VersioningConfiguration={"Status": "Enabled"})
    assert any("lifecycle" in finding.hint for finding in worst(opened(options)))


# Rights and credentials


def test_a_credential_that_may_not_delete(place, radosgw, tmp_path):
    options = place()
    rights = ("s3:GetObject", "s3:PutObject", "s3:ListBucket")
    s3 = opened(options | restricted(radosgw, options, tmp_path, *rights))
    s3.put("points/a", b"1")
    assert s3.get("points/a") == b"1"
    with pytest.raises(AccessDenied, match="points/a") as caught:
        s3.delete("points/a")
    assert not caught.value.transient
    assert "deleting" in worst(s3)[-1].what
    assert {finding.level for finding in worst(s3)} == {Level.WARNING}


def test_a_role_is_assumed(place, radosgw):
    s3 = opened(place(role_arn=radosgw.new_role()))
    s3.put("points/a", b"1")
    assert s3.get("points/a") == b"1"
    assert worst(s3) == []
    with pytest.raises(AccessDenied, match="credentials"):
        opened(place(role_arn="arn:aws:iam:::role/that-is-none")).get("points/a")


def test_keys_of_the_environment_and_of_a_profile(place, radosgw, monkeypatch, tmp_path):
    options = place()
    for name in ("access_key_id", "secret_access_key"):
        del options[name]
    with pytest.raises(AccessDenied, match="no credentials"):
        opened(options).get("points/a")
    with pytest.raises(ConfigError, match="profile"):
        opened(options, profile="backup").get("points/a")
    keys = f"aws_access_key_id = {radosgw.access_key}\naws_secret_access_key = {radosgw.secret_key}\n"
    secret_file(tmp_path / "AWS_SHARED_CREDENTIALS_FILE", f"[backup]\n{keys}")
    opened(options, profile="backup").put("points/a", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", options.pop("endpoint"))
    assert opened(options).get("points/a") == b"1"
    assert worst(opened(options)) == []
    assert logging.getLogger("botocore").level == logging.INFO


def test_the_environment_does_not_change_what_is_configured(place, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_REGION": "elsewhere",
        "AWS_BUCKET": "other",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_ALLOW_HTTP": "false",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = opened(place(lock=True))
    s3.put("points/a", b"1")
    assert s3.get("points/a") == b"1"
    assert not [finding for finding in s3.check() if finding.level is Level.ERROR]


def test_a_secret_that_is_missing_is_no_missing_object(place, tmp_path):
    s3 = opened(place(secret_access_key={"file": tmp_path / "missing"}))
    for action in (lambda: s3.get("a"), lambda: s3.delete("a"), lambda: list(s3.list("a"))):
        with pytest.raises(ConfigError, match="missing"):
            action()


def test_a_clock_that_goes_wrong_is_told(place, monkeypatch):
    s3 = opened(place())
    later(monkeypatch, timedelta(minutes=7))
    (finding,) = worst(s3)
    assert finding.level is Level.WARNING
    assert "clock" in finding.what


# The gateway dies


def test_killed_in_the_middle_of_puts(place, radosgw):
    """Under the retries nothing is lost, nothing half-written, and what was created is not refused to its maker."""
    retrying = RetryingTransport(opened(place(timeout=20)), 300)
    objects = {f"packs/{number:02}": bytes([number]) * (2 * MIB + number) for number in range(24)}
    begun = threading.Semaphore(0)

    def put(item):
        begun.release()
        retrying.put(*item, if_absent=True)

    with ThreadPoolExecutor(6) as pool:
        puts = [pool.submit(put, item) for item in objects.items()]
        for _ in range(8):
            begun.acquire()
        radosgw.kill()
        radosgw.start()
        for one in puts:
            one.result()
    assert {info.key: info.size for info in retrying.list()} == {key: len(data) for key, data in objects.items()}
    for key, data in objects.items():
        assert retrying.get(key) == data


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Make a certificate of an own authority for the name ``localhost`` only; return its file and the authority's."""
    path = tmp_path_factory.mktemp("tls")
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vbackup tests")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.now(UTC) - timedelta(days=1)

    def signed(subject, public_key, extension):
        builder = x509.CertificateBuilder(
            issuer_name=root, subject_name=subject, public_key=public_key, serial_number=x509.random_serial_number(),
            not_valid_before=start, not_valid_after=start + timedelta(days=30),
        ).add_extension(extension, critical=False)  # fmt: skip
        certificate = builder.sign(root_key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)

    of_root = signed(root, root_key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
    of_server = signed(name, key.public_key(), x509.SubjectAlternativeName([x509.DNSName("localhost")]))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (path / "server.pem").write_bytes(private + of_server)
    (path / "ca.pem").write_bytes(of_root)
    return path / "server.pem", path / "ca.pem"


@pytest.fixture(scope="module")
def gateway_with_tls(authority):
    with Daemons("radosgw-tls") as daemons:
        yield Radosgw(daemons, tls=authority)


def test_certificates(gateway_with_tls, authority, tmp_path):
    """An own authority is trusted if it is configured; an unknown one and a wrong name are refused, for good."""
    options = gateway_with_tls.entry(lock=True)
    by_address = options["endpoint"].replace("localhost", "127.0.0.1")
    s3 = opened(options, ca_file=authority[1])
    s3.put("points/a", b"1")
    s3.lock("points/a", clock.now())
    assert s3.get("points/a") == b"1"
    assert not [finding for finding in s3.check() if finding.level is Level.ERROR]
    for wrong in (
        opened(options),
        opened(options, endpoint=by_address, ca_file=authority[1]),
    ):
        for action in (
            lambda wrong=wrong: wrong.get("points/a"),
            lambda wrong=wrong: wrong.put("points/b", b"1"),
            lambda wrong=wrong: wrong.lock("points/a", clock.now()),
        ):
            with pytest.raises(Unavailable, match="certificate") as caught:
                action()
            assert not caught.value.transient
            assert "ca_file" in caught.value.hint
        assert worst(wrong)[0].level is Level.ERROR
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "cut").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for name in ("missing", "text", "cut"):
        with pytest.raises(ConfigError, match="ca_file"):
            opened(options, ca_file=tmp_path / name).get("points/a")
        assert worst(opened(options, ca_file=tmp_path / name))[0].level is Level.ERROR
    with pytest.raises(NotFound):
        s3.get("points/b")


def test_a_server_that_does_not_speak_tls(place, radosgw):
    s3 = opened(place(endpoint=radosgw.endpoint.replace("http:", "https:")))
    with pytest.raises(Unavailable, match="TLS") as caught:
        s3.get("points/a")
    assert not caught.value.transient
    assert "http://" in caught.value.hint
