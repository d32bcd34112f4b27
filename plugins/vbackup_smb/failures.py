"""What answers of an SMB server, and failures of smbprotocol, are as `OSError`."""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.exceptions import InvalidTag
from smbprotocol.exceptions import SMBException, SMBResponseException

# NTSTATUS values of MS-ERREF, section 2.3.1.
_STATUS = {
    0xC000000F: errno.ENOENT,  # NO_SUCH_FILE
    0xC0000034: errno.ENOENT,  # OBJECT_NAME_NOT_FOUND
    0xC000003A: errno.ENOENT,  # OBJECT_PATH_NOT_FOUND; also below a file
    0xC0000056: errno.ENOENT,  # DELETE_PENDING: gone as soon as the last who has it open closes it
    0xC0000035: errno.EEXIST,  # OBJECT_NAME_COLLISION
    0xC0000022: errno.EACCES,  # ACCESS_DENIED
    0xC0000121: errno.EACCES,  # CANNOT_DELETE
    0xC00000A2: errno.EROFS,  # MEDIA_WRITE_PROTECTED
    0xC000007F: errno.ENOSPC,  # DISK_FULL
    0xC0000044: errno.EDQUOT,  # QUOTA_EXCEEDED
    0xC0000802: errno.EDQUOT,  # DISK_QUOTA_EXCEEDED
    0xC00000BA: errno.EISDIR,  # FILE_IS_A_DIRECTORY
    0xC0000103: errno.ENOTDIR,  # NOT_A_DIRECTORY
    0xC0000101: errno.ENOTEMPTY,  # DIRECTORY_NOT_EMPTY
    0xC0000043: errno.EBUSY,  # SHARING_VIOLATION
    0xC0000054: errno.EBUSY,  # FILE_LOCK_CONFLICT
    0xC00000BB: errno.ENOTSUP,  # NOT_SUPPORTED
    0xC0000010: errno.ENOTSUP,  # INVALID_DEVICE_REQUEST
    0xC0000002: errno.ENOTSUP,  # NOT_IMPLEMENTED
    0xC000000D: errno.ENOTSUP,  # INVALID_PARAMETER
    0xC0000033: errno.ENOTSUP,  # OBJECT_NAME_INVALID
    0xC00000D4: errno.ENOTSUP,  # NOT_SAME_DEVICE: what is below the share is on several file systems
    0xC000009A: errno.EAGAIN,  # INSUFFICIENT_RESOURCES
    0xC0000205: errno.EAGAIN,  # INSUFF_SERVER_RESOURCES
    0xC00000D0: errno.EAGAIN,  # REQUEST_NOT_ACCEPTED: too many sessions
    0xC000011F: errno.EMFILE,  # TOO_MANY_OPENED_FILES
    0xC00000B5: errno.ETIMEDOUT,  # IO_TIMEOUT
    0xC00000C9: errno.ENOTCONN,  # NETWORK_NAME_DELETED
    0xC0000203: errno.ENOTCONN,  # USER_SESSION_DELETED
    0xC000035C: errno.ENOTCONN,  # NETWORK_SESSION_EXPIRED
    0xC0000128: errno.ENOTCONN,  # FILE_CLOSED
}
LOST = {errno.ENOTCONN, errno.ETIMEDOUT}
"""After these there is nothing more to ask over the connection."""


@contextmanager
def as_os_error() -> Iterator[None]:
    """Turn what smbprotocol raises into `OSError`."""
    try:
        yield
    except SMBResponseException as error:
        raise OSError(_STATUS.get(error.status, errno.EIO), said(error)) from error
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, str(error)) from error
    except (SMBException, OSError, ValueError, LookupError, struct.error, InvalidTag) as error:
        # Its receiving thread hands on whatever ended it: a socket, an answer that cannot be read or is not authentic.
        raise OSError(errno.ENOTCONN, f"the connection was lost: {error or type(error).__name__}") from error


def said(error: SMBResponseException) -> str:
    """Return the status that a server gave, in words if smbprotocol has some."""
    words = "" if type(error) is SMBResponseException else re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
    return f"the server says {words or 'NTSTATUS'} ({error.status:#010x})"
