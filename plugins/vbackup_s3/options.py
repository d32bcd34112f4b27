"""What stands under ``type: s3``."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from vbackup.api import Options, SecretRef

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}\.)*(?!\d+\Z|0x)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")

_FITS = re.compile(r"[\x21-\x7e]+")
_SENT = f"^{_FITS.pattern}$"


class Encryption(Options):
    """How the store is asked to encrypt; vbackup's own encryption does not depend on it."""

    type: Literal["AES256", "aws:kms"] = Field(description="`AES256`: keys of the store; `aws:kms`: of its key service")
    kms_key_id: str | None = Field(
        default=None, pattern=_SENT, description="the key of `aws:kms`; default: the bucket's"
    )

    @model_validator(mode="after")
    def _key_has_a_service(self) -> Self:
        if self.kms_key_id is not None and self.type != "aws:kms":
            raise ValueError("kms_key_id goes with type aws:kms only")
        return self


class S3Options(Options):
    """Options of ``type: s3``."""

    bucket: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$", description="it must be there")
    prefix: str = Field(default="", max_length=256, description="a path in the bucket; default: all of the bucket")
    endpoint: str | None = Field(
        default=None, description="`https://host:port` of the store; default: AWS_ENDPOINT_URL_S3, else Amazon's"
    )
    region: str | None = Field(
        default=None, pattern=_SENT, description="default: AWS_REGION or the profile's, else us-east-1"
    )
    path_style: bool | None = Field(
        default=None, description="the bucket in the path, not in the host name; default: yes with an endpoint"
    )
    ca_file: Path | None = Field(default=None, description="a PEM file with more certificate authorities to trust")
    access_key_id: str | None = Field(default=None, pattern=_SENT, description="default: the chain of AWS's own tools")
    secret_access_key: SecretRef | None = Field(default=None, description="goes with `access_key_id`")
    session_token: SecretRef | None = Field(default=None, description="goes with temporary keys")
    profile: str | None = Field(default=None, description="a profile of ~/.aws/config")
    role_arn: str | None = Field(default=None, description="a role to assume with these credentials (STS)")
    external_id: str | None = Field(default=None, description="what the role asks for beside them")
    storage_class: str | None = Field(
        default=None, pattern=r"^[A-Z0-9_]+$", description="of packs, which are nearly all bytes; others are read often"
    )
    sse: Encryption | None = Field(default=None, description="server-side encryption; default: as the bucket is set")
    object_lock: bool = Field(
        default=False, description="the bucket was made with Object Lock, which `lock_days` needs"
    )
    conditional_put: bool = Field(default=True, description="false where the store does not know If-None-Match")
    timeout: float = Field(default=60, gt=0, le=3600, description="seconds without an answer after which to try again")

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, endpoint: str | None) -> str | None:
        return None if endpoint is None else checked_endpoint(endpoint)

    @field_validator("prefix")
    @classmethod
    def _is_path(cls, prefix: str) -> str:
        path = prefix.strip("/")
        if path and not _PREFIX.fullmatch(path):
            raise ValueError("must be names of letters, digits, '.', '-' and '_', joined by '/'")
        return path

    @model_validator(mode="after")
    def _credentials_fit(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token goes with access_key_id")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("give either a profile or access_key_id")
        if self.external_id is not None and self.role_arn is None:
            raise ValueError("external_id goes with role_arn")
        return self


def fits_a_header(text: str) -> bool:
    """Whether text can be sent as a header of HTTP; of what cannot, obstore panics, which nobody can catch."""
    return _FITS.fullmatch(text) is not None


def is_address(host: str) -> bool:
    """Whether a host is an IP address, not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def checked_endpoint(endpoint: str) -> str:
    """Return a URL without a slash at its end. Raises `ValueError`."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not (_HOST.fullmatch(host) or is_address(host)):
        raise ValueError("must be http://host or https://host, and a port where it is not the usual one")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must have neither a user nor a query")
    if parts.port == 0:  # asking for it raises ValueError if it is none
        raise ValueError("must have a port that can be connected to")
    return endpoint.rstrip("/")
