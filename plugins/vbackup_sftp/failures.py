"""What failures of asyncssh are as `OSError`, and how long one waits for an answer."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

T = TypeVar("T")

# Status codes of draft-ietf-secsh-filexfer-02, section 7, and of -13, section 9.1, for servers that are more precise.
_STATUS = {
    2: errno.ENOENT,  # no such file; OpenSSH says so of ENOTDIR and ELOOP too
    3: errno.EACCES,  # permission denied
    6: errno.ENOTCONN,  # no connection
    7: errno.ENOTCONN,  # connection lost
    8: errno.ENOTSUP,  # operation unsupported
    10: errno.ENOENT,  # no such path
    11: errno.EEXIST,  # file already exists
    12: errno.EROFS,  # write protect
    14: errno.ENOSPC,  # no space on file system
    15: errno.EDQUOT,  # quota exceeded
    18: errno.ENOTEMPTY,  # directory not empty
    19: errno.ENOTDIR,  # not a directory
    24: errno.EISDIR,  # file is a directory
}
FAILURE = errno.EIO
"""What a server said no more of than "Failure": SFTP 3 has no words for a name that is taken, a full disk ..."""

LOST = {errno.ENOTCONN, errno.ETIMEDOUT}
"""After these there is nothing more to ask over the connection."""


class Limit:
    """Bounds each wait for the server to so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __call__(self, answer: Awaitable[T]) -> T:
        """Wait for an answer. Raises: `OSError`; ETIMEDOUT when it takes too long."""
        with as_os_error(self.seconds):
            async with asyncio.timeout(self.seconds):
                return await answer

    @asynccontextmanager
    async def steps(self) -> AsyncIterator[asyncio.Timeout]:
        """The same for many answers in the block: call ``reschedule(limit.next)`` on the value after each."""
        with as_os_error(self.seconds):
            async with asyncio.timeout(self.seconds) as clock:
                yield clock

    @property
    def next(self) -> float:
        """Until when the next answer must have come, by the clock of the loop."""
        return asyncio.get_running_loop().time() + self.seconds


@contextmanager
def as_os_error(seconds: float) -> Iterator[None]:
    """Turn what asyncssh and asyncio raise into `OSError`."""
    import asyncssh

    try:
        yield
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, f"the server did not answer within {seconds:g} s") from error
    except asyncssh.SFTPError as error:
        text = error.reason or type(error).__name__
        raise OSError(_STATUS.get(error.code, FAILURE), text) from error
    except (asyncssh.Error, BrokenPipeError, ConnectionError) as error:
        raise OSError(errno.ENOTCONN, f"the connection was lost: {error}") from error
