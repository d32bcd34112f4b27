"""What a refusal, or the lack of an answer, means: S3's error codes as our errors.

Codes: "Error responses" in the Amazon S3 API Reference; compatible stores add their own. Neither library's text is
repeated, for a store may put a session token into its answer; what is repeated is the code and the store's message.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any, NamedTuple

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    NoSpace,
    NotFound,
    Unavailable,
    Unsupported,
    VBackupError,
)

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})[^:]*: ?(.*?)(?:\n\nDebug source:|\Z)", re.DOTALL)
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,200})")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")


_THROTTLES = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}
_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 3600.0


class Meaning(NamedTuple):
    """What one of the codes means, or, where none is listed, one of the statuses of HTTP."""

    codes: set[str]
    statuses: set[int]
    error: type[VBackupError]
    transient: bool
    hint: str


_MEANINGS = (
    Meaning({"NoSuchBucket"}, set(), Unavailable, False, "make the bucket or correct `bucket`: vbackup makes none"),
    Meaning(
        {"InsufficientStorage", "InsufficientCapacity", "QuotaExceeded", "StorageFull", "XMinioStorageFull"}, {507},
        NoSpace, False, "free some space or raise the quota",
    ),
    Meaning(
        {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"},
        {301, 302, 303, 307, 308}, Unavailable, False, "correct `region`, or `endpoint`",
    ),
    Meaning(
        {"RequestTimeTooSkewed", "RequestExpired"}, set(),
        Unavailable, False, "set the clock of this machine: it differs too much from the store's",
    ),
    Meaning(
        {"ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
         *_THROTTLES}, {408, 409, 425, 429}, Unavailable, True, "",
    ),
    Meaning({"InvalidObjectState"}, set(), Unavailable, False, "the object is archived: restore it in the store first"),
    Meaning({"NotImplemented", "MethodNotAllowed"}, {501}, Unsupported, False, "the store does not have this of S3"),
    Meaning(
        {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}, set(),
        AccessDenied, False, "the session token has expired or is wrong: get a new one",
    ),
    Meaning(
        {"InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"}, set(),
        AccessDenied, False, "check access_key_id and secret_access_key",
    ),
    Meaning(
        {"AccessDenied", "AllAccessDisabled", "AccountProblem"}, {401, 403},
        AccessDenied, False, "check the credentials, and what they may do in this bucket",
    ),
    Meaning({"PreconditionFailed", "FileAlreadyExists"}, {412}, AlreadyExists, False, ""),
    Meaning({"NoSuchKey", "NoSuchVersion"}, set(), NotFound, False, ""),
    Meaning(
        set(), {404},  # who has no object of that name says so by its code
        Unavailable, True, "something else than the store seems to answer: check `endpoint`, proxies and the network",
    ),
    Meaning(set(), {505}, Unavailable, False, "something else than a store seems to answer: check `endpoint`"),
    Meaning(set(), set(range(500, 600)), Unavailable, True, ""),
)  # fmt: skip


class Refusal(NamedTuple):
    """An answer that is not what was asked for; HEAD has no code in it, nor a message."""

    status: int
    code: str
    message: str
    wait: float | None = None
    """Seconds, if the store named some; obstore does not hand them on."""


def refusal(error: BaseException) -> Refusal | None:
    """Return what the store answered, if an error of obstore or botocore is about an answer."""
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):
        told, meta = answer.get("Error", {}), answer.get("ResponseMetadata", {})
        code, message = str(told.get("Code", "")), str(told.get("Message", ""))
        wait = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
        return Refusal(
            meta.get("HTTPStatusCode", 0),
            "" if code.isdigit() else code,
            _printable(message),
            min(float(wait), _LONGEST_PAUSE_SECONDS) if wait.isascii() and wait.isdigit() else None,
        )
    found = _STATUS.search(str(error))
    if found is None:
        return None
    return Refusal(int(found[1]), _first(_CODE, found[2]), _printable(unescape(_first(_MESSAGE, found[2]))))


def beyond_the_end(error: Exception) -> bool:
    """Whether a range was refused because the object ends before it."""
    answer = refusal(error)
    return answer is not None and answer.status == 416


@contextmanager
def told(action: str) -> Iterator[None]:
    """Turn errors of obstore and botocore into ours; ``action`` is "read packs/ab in bucket b at host" or the like.

    The original is not kept as the cause: a store may repeat a session token in its answer.
    """
    try:
        yield
    except _errors() as error:
        raise as_ours(error, action) from None


def _errors() -> tuple[type[Exception], ...]:
    """Return what the libraries that are imported by now raise; what is missing is none of obstore's own."""
    found: list[type[Exception]] = []
    if "obstore" in sys.modules:
        from obstore.exceptions import BaseError

        found += [BaseError, FileNotFoundError]
    if "botocore" in sys.modules:
        from botocore.exceptions import BotoCoreError, ClientError

        found += [BotoCoreError, ClientError]
    return tuple(found)


def as_ours(error: Exception, action: str) -> VBackupError:
    """Return what an error of obstore or botocore means when doing ``action``."""
    answer = refusal(error)
    return _no_answer(error, action) if answer is None else _answered(answer, action)


def _answered(answer: Refusal, action: str) -> VBackupError:
    message = f"cannot {action}: {_said(answer)}"
    by_code = (meaning for meaning in _MEANINGS if answer.code in meaning.codes)
    by_status = (meaning for meaning in _MEANINGS if answer.status in meaning.statuses)
    meaning = next(by_code, None) or next(by_status, None)
    if meaning is None:
        return Unavailable(message, transient=False)
    if meaning.transient and (answer.wait or answer.status == 429 or answer.code in _THROTTLES):
        return Unavailable(message, hint=meaning.hint, retry_after=answer.wait or _PAUSE_SECONDS)
    return meaning.error(message, hint=meaning.hint, transient=meaning.transient)


def _no_answer(error: Exception, action: str) -> VBackupError:
    text = f"{type(error).__name__}: {error}"
    if "InvalidContentType" in text or "WRONG_VERSION_NUMBER" in text:
        hint = "use http:// in `endpoint`, or set up TLS there"
        return Unavailable(f"cannot {action}: the server does not speak TLS", hint=hint, transient=False)
    certificate = _CERTIFICATE.search(text)
    if certificate or "SSL validation failed" in text:
        why = f" ({certificate[1]})" if certificate else ""
        return Unavailable(
            f"cannot {action}: the certificate of the server cannot be trusted{why}",
            hint="set `ca_file` to its certificate authority, and use the name in `endpoint` that it is for",
            transient=False,
        )
    if any(word in text for word in ("NoCredentials", "PartialCredentials", "CredentialRetrieval", "UnauthorizedSSO")):
        return AccessDenied(f"cannot {action}: no credentials were found", hint="set access_key_id, or a profile")
    if "ProfileNotFound" in text:
        return ConfigError(f"cannot {action}: the profile is not in ~/.aws/config", hint="correct `profile`")
    if "redirect without LOCATION" in text:
        hint = "correct `region`, or `endpoint`"
        return Unavailable(f"cannot {action}: the bucket is in another region", hint=hint, transient=False)
    if any(word in text for word in ("ResponseParserError", *_OTHER_PARTS)):
        hint = "something else than the store seems to answer: check `endpoint`, proxies and the network"
        return Unavailable(f"cannot {action}: the answer is none of S3", hint=hint)
    for words, why in _SILENCES:
        if any(word in text for word in words):
            return Unavailable(f"cannot {action}: {why}", hint="check `endpoint`, the server and the network")
    name = type(error).__name__
    return Unavailable(f"cannot {action}: the client library failed ({name})", transient=False)


_OTHER_PARTS = ("non-partial response", "Content-Range", "CONTENT_RANGE", "Requested ")
"""What obstore says if it asked for a part of an object and got the whole, or another part."""
_SILENCES = (
    (("dns error", "failed to lookup", "Name or service", "NameResolution"), "the name of the server is not known"),
    (("ConnectionRefused", "Connection refused"), "the server refuses connections"),
    (("TimedOut", "timed out", "Timeout"), "the server does not answer in time"),
    (("HTTP error", "HTTPClientError", "EndpointConnection", "ConnectionError", "ConnectionClosed", "ResponseStreaming",
      "IncompleteRead"), "the connection broke"),
)  # fmt: skip


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _said(answer: Refusal) -> str:
    words = ": ".join(word for word in (answer.code, answer.message) if word)
    return f"{words} (HTTP {answer.status})" if words else f"the store answered HTTP {answer.status}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:200])
