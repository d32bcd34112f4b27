"""What a store was asked, and how long it took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

from vbackup.api import Transport, VBackupError
from vbackup.api.hypervisor import Buffer
from vbackup.api.wrapper import Wrapper

T = TypeVar("T")
_log = logging.getLogger("vbackup.transport")


class LoggingTransport(Wrapper):
    """Logs each operation when it has ended: its key, its bytes and milliseconds, and of an error its kind and text.

    Never the data. At INFO on the logger ``vbackup.transport`` (``vbackup -v``), as ``main: put packs/ab: 4096 bytes
    in 12 ms``.
    """

    name: ClassVar[str] = "log"

    def __init__(self, inner: Transport, alias: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Wrap ``inner``, whose name in the configuration is ``alias``."""
        super().__init__(inner)
        self._alias = alias
        self._clock = clock

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        size = memoryview(data).nbytes
        self._logged("put", key, lambda: self.inner.put(key, data, if_absent=if_absent), lambda _: f"{size} bytes")

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        where = f"{key} from {offset}" if offset else key
        return self._logged(
            "get", where, lambda: self.inner.get(key, offset, length), lambda data: f"{len(data)} bytes"
        )

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Act, and log it."""
        return self._logged(operation, key, action, _told)

    def _logged(self, operation: str, key: str, action: Callable[[], T], told: Callable[[T], str]) -> T:
        begun = self._clock()
        outcome = "failed"
        try:
            result = action()
        except VBackupError as error:
            outcome = f"{error.kind}, {error.message},"
            raise
        else:
            outcome = told(result)
            return result
        finally:
            what, milliseconds = f"{operation} {key}".rstrip(), 1000 * (self._clock() - begun)
            _log.info("%s: %s: %s in %.0f ms", self._alias, what, outcome, milliseconds)


def _told(result: object) -> str:
    """Say what came of an operation that carries no data."""
    if isinstance(result, int):
        return f"{result} bytes"
    return f"{len(result)} objects" if isinstance(result, list) else "done"
