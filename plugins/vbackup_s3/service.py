"""The client of botocore, for all that carries no bytes of objects. It follows no redirects."""

from __future__ import annotations

import threading
from typing import Any

from vbackup_s3.credentials import Credentials, endpoint_of
from vbackup_s3.options import S3Options
from vbackup_s3.store import path_style


class Service:
    """S3 as botocore has it. For many threads at once; what is asked after `close` connects again."""

    def __init__(self, options: S3Options, credentials: Credentials) -> None:
        self._options = options
        self._credentials = credentials
        self._lock = threading.Lock()
        self._made: tuple[tuple[str, str, str | None], Any] | None = None

    def client(self) -> Any:
        """Return a client; a new one when the credentials are new. Raises what `Credentials.fetch` does."""
        keys = self._credentials.fetch()
        signs = keys["access_key_id"], keys["secret_access_key"], keys["token"]
        with self._lock:
            if self._made is None or self._made[0] != signs:
                style = "path" if path_style(self._options) else "virtual"
                endpoint = endpoint_of(self._options)
                client = self._credentials.client("s3", keys, endpoint_url=endpoint, s3={"addressing_style": style})
                client.meta.events.register("before-call.s3", _follow_nothing)
                self._made = signs, client
            return self._made[1]

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made[1].close()


def _follow_nothing(context: dict[str, Any], **_: Any) -> None:
    """Say that a redirect was followed: else botocore asks where the bucket is, for ever if that is redirected too."""
    context.setdefault("s3_redirect", {})["redirected"] = True
