"""Who we are: keys of the configuration, AWS's own chain, or a role assumed with either.

Keys that are given are taken as they are; all else is botocore's, which is imported when it is first needed.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vbackup.api import AccessDenied, ConfigError, NotFound, SecretRef, Unsupported, VBackupError, clock
from vbackup_s3.failures import refusal, told
from vbackup_s3.options import S3Options, checked_endpoint, fits_a_header

if TYPE_CHECKING:
    from obstore.store import S3Credential

_FRESH_SECONDS = 300
_VALID = timedelta(minutes=10)  # botocore renews what would not be valid for so long
_DEFAULT_REGION = "us-east-1"
_CONNECTIONS = 64


class Credentials:
    """Fetches them when they are first needed, and again every few minutes, for those of a role expire."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._lock = threading.RLock()
        self._session: Any = None
        self._source: Callable[[], S3Credential] | None = None
        self._fetched: tuple[float, S3Credential] | None = None
        self._failed: VBackupError | None = None
        self._attempts = 0

    def fetch(self) -> S3Credential:
        """Return what signs requests now; obstore asks again before it expires.

        Who waited for an attempt of another that failed fails like it: in turn, they would wait for ever.

        Raises: `AccessDenied`, `ConfigError`, `Unavailable`, `Unsupported`.
        """
        begun = self._attempts
        with self._lock:
            if self._fetched is not None and time.monotonic() - self._fetched[0] <= _FRESH_SECONDS:
                return self._fetched[1]
            if self._attempts != begun and self._failed is not None:
                raise copy.copy(self._failed)
            try:
                keys, self._failed = self._fetch(), None
            except VBackupError as error:
                self._failed = error
                raise
            finally:
                self._attempts += 1
            self._fetched = time.monotonic(), keys
            return keys

    def host(self) -> str:
        """Name the store, for messages."""
        return urlsplit(endpoint_of(self._options) or "https://amazonaws.com").netloc

    def region(self) -> str:
        """Return the region of the configuration, the environment or the profile. Raises `ConfigError`."""
        region = self._region()
        if not fits_a_header(region):
            raise ConfigError(f"the region {region!r} is none", hint="correct AWS_REGION or ~/.aws/config")
        return region

    def _region(self) -> str:
        given = self._options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if given or self._options.access_key_id is not None:
            return given or _DEFAULT_REGION
        with self._lock, told("read ~/.aws/config"):
            return str(self._botocore().get_config_variable("region") or _DEFAULT_REGION)

    def client(self, service: str, keys: S3Credential | None, **more: Any) -> Any:
        """Return a client of botocore; ``more`` are arguments of its `create_client`."""
        from botocore.config import Config

        config = Config(
            connect_timeout=self._options.timeout,
            read_timeout=self._options.timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=_CONNECTIONS,
            s3=more.pop("s3", None),
        )
        if keys is not None:
            more |= {
                "aws_access_key_id": keys["access_key_id"],
                "aws_secret_access_key": keys["secret_access_key"],
                "aws_session_token": keys["token"],
            }
        with self._lock:  # a session is not for many threads, its clients are
            try:
                return self._botocore().create_client(
                    service,
                    region_name=self.region(),
                    config=config,
                    verify=None if self._options.ca_file is None else str(self._options.ca_file),
                    **more,
                )
            except ValueError:  # names of hosts with "_", for one
                raise ConfigError(f"botocore cannot use the endpoint {more.get('endpoint_url')}") from None

    def _botocore(self) -> Any:
        if self._session is None:
            try:
                import botocore.session
            except ImportError as error:
                raise Unsupported(
                    "botocore is not installed",
                    hint="pip install 'vbackup[s3]'",
                ) from error
            logging.getLogger("botocore").setLevel(logging.INFO)  # below, it logs tokens and the keys of roles
            self._session = botocore.session.Session(profile=self._options.profile)
        return self._session

    def _fetch(self) -> S3Credential:
        with told(f"get credentials for bucket {self._options.bucket}"):
            if self._source is None:
                self._source = self._find_source()
            keys = self._source()
        if not all(fits_a_header(keys[name]) for name in ("access_key_id", "secret_access_key")) or not (
            keys["token"] is None or fits_a_header(keys["token"])
        ):
            hint = "look for spaces, line ends and letters that are not ASCII in them"
            raise AccessDenied(f"the credentials for bucket {self._options.bucket} cannot be sent", hint=hint)
        return keys

    def _find_source(self) -> Callable[[], S3Credential]:
        identity, secret = self._options.access_key_id, self._options.secret_access_key
        source = self._chain() if identity is None or secret is None else lambda: self._given(identity, secret)
        return source if self._options.role_arn is None else self._role(source)

    def _given(self, access_key_id: str, secret_access_key: SecretRef) -> S3Credential:
        token = self._options.session_token
        return {
            "access_key_id": access_key_id,
            "secret_access_key": _resolve(secret_access_key),
            "token": None if token is None else _resolve(token),
            "expires_at": None if token is None else clock.now() + _VALID,
        }

    def _chain(self) -> Callable[[], S3Credential]:
        found = self._botocore().get_credentials()
        if found is None:
            from botocore.exceptions import NoCredentialsError

            raise NoCredentialsError
        return lambda: _frozen(found)

    def _role(self, source: Callable[[], S3Credential]) -> Callable[[], S3Credential]:
        from botocore.credentials import AssumeRoleCredentialFetcher, Credentials, DeferredRefreshableCredentials
        from botocore.exceptions import ClientError

        class Source:
            """The credentials that may assume the role, fetched anew each time."""

            @staticmethod
            def get_frozen_credentials() -> Any:
                keys = source()
                return Credentials(keys["access_key_id"], keys["secret_access_key"], keys["token"])

        extra = {"RoleSessionName": "vbackup"}
        if self._options.external_id is not None:
            extra["ExternalId"] = self._options.external_id
        fetcher = AssumeRoleCredentialFetcher(
            client_creator=self._sts, source_credentials=Source, role_arn=self._options.role_arn, extra_args=extra
        )
        renewed = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")

        def assumed() -> S3Credential:
            try:
                return _frozen(renewed)
            except ClientError as error:
                answer = refusal(error)
                if answer is None or answer.status != 404:
                    raise
                message = (
                    f"cannot get credentials for bucket {self._options.bucket}: {self._options.role_arn} is no role"
                )
                raise AccessDenied(message, hint="check `role_arn`") from None

        return assumed

    def _sts(self, service: str, **keys: Any) -> Any:
        # A store of one's own has STS at the same place; Amazon's is found by the region.
        elsewhere = "AWS_ENDPOINT_URL_STS" in os.environ
        return self.client(service, None, endpoint_url=None if elsewhere else self._options.endpoint, **keys)


def endpoint_of(options: S3Options) -> str | None:
    """Return the store's URL by the configuration or the environment; None is Amazon. Raises `ConfigError`."""
    if options.endpoint is not None:
        return options.endpoint
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            try:
                return checked_endpoint(os.environ[name])
            except ValueError as error:
                raise ConfigError(f"the environment variable {name} {error}") from None
    return None


def _frozen(credentials: Any) -> S3Credential:
    frozen = credentials.get_frozen_credentials()
    return {
        "access_key_id": frozen.access_key,
        "secret_access_key": frozen.secret_key,
        "token": frozen.token,
        "expires_at": clock.now() + _VALID,
    }


def _resolve(secret: SecretRef) -> str:
    try:
        return secret.resolve().decode("ascii")
    except NotFound as error:  # it is not an object that is missing
        raise ConfigError(error.message, hint=error.hint) from None
    except UnicodeDecodeError:
        raise ConfigError(f"the secret from {secret} is not plain text") from None
