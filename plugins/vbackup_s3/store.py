"""The client of obstore for a bucket, as the options say."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext, SSLError
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vbackup.api import ConfigError, Unsupported
from vbackup_s3.credentials import Credentials, endpoint_of
from vbackup_s3.options import S3Options, is_address

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Store

CONNECT_SECONDS = 10
SLOWEST = 256 << 10
"""Bytes per second: an upload that is slower is given up. obstore counts sending as waiting for the answer."""


def make_store(options: S3Options, credentials: Credentials, largest: int) -> S3Store:
    """Return a client for requests with bodies of at most ``largest`` bytes. Raises: `ConfigError`, `Unsupported`."""
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise Unsupported("obstore is not installed", hint="pip install 'vbackup[s3]'") from error
    return S3Store(
        options.bucket,
        prefix=options.prefix or None,
        config=_config(options, credentials.region()),
        client_options=_client(options, largest),
        # Trying again is for who is above: here it would hide that a create-only put meets its own success.
        retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
        credential_provider=credentials.fetch,
    )


def path_style(options: S3Options) -> bool:
    """Whether the bucket goes into the path: names with dots fit no certificate for ``*.host``."""
    if options.path_style is not None:
        return options.path_style
    return endpoint_of(options) is not None or "." in options.bucket


def _config(options: S3Options, region: str) -> S3Config:
    """Say all that the environment could say otherwise."""
    config: S3Config = {
        "region": region,
        "unsigned_payload": True,  # hashing it costs more than all else; TLS and vbackup's own hashes protect it
        "virtual_hosted_style_request": not path_style(options),
        "disable_bulk_delete": True,  # some stores have none
        "skip_signature": False,
        "conditional_put": "etag",
    }
    if (endpoint := endpoint_of(options)) is not None:
        if not path_style(options):
            parts = urlsplit(endpoint)
            if is_address(parts.hostname or ""):
                raise ConfigError(f"path_style: false needs a host name in `endpoint`, not {parts.hostname}")
            endpoint = parts._replace(netloc=f"{options.bucket}.{parts.netloc}").geturl()
        config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    if options.sse is not None:
        config["server_side_encryption"] = options.sse.type
        if options.sse.kms_key_id is not None:
            config["sse_kms_key_id"] = options.sse.kms_key_id
    return config


def _client(options: S3Options, largest: int) -> ClientConfig:
    silence = options.timeout + largest / SLOWEST
    client: ClientConfig = {
        "allow_http": (endpoint_of(options) or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=min(options.timeout, CONNECT_SECONDS)),
        "read_timeout": timedelta(seconds=silence),
        "timeout": timedelta(seconds=10 * silence),  # for one who sends an answer a byte at a time
    }
    if options.ca_file is not None:
        client["root_certificate"] = _authorities(options.ca_file)
    return client


def _authorities(path: Path) -> bytes:
    try:
        SSLContext(PROTOCOL_TLS_CLIENT).load_verify_locations(path)  # obstore and botocore say less of what is wrong
        return path.read_bytes()
    except SSLError:
        raise ConfigError(f"ca_file {path} holds no certificate in PEM form") from None
    except OSError as error:
        raise ConfigError(f"ca_file {path} cannot be read: {error.strerror}") from None
