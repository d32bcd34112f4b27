"""The C library libnbd, by ctypes: the few functions that `vbackup_qemu.nbd` calls, with their types.

Every call drops the GIL. Signatures are those of libnbd 1.12's ``libnbd.h``; its ABI only ever grows (libnbd(3),
"API and ABI stability").
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

from vbackup.api import Unsupported

SONAME = "libnbd.so.0"
OLDEST = (1, 12)
INSTALL = "apt-get install libnbd0, or dnf install libnbd"

ExtentFunction = ctypes.CFUNCTYPE(
    c_int, c_void_p, c_char_p, c_uint64, POINTER(c_uint32), c_size_t, POINTER(c_int), use_errno=False
)
"""``callback(user_data, context, offset, entries, number of entries, error)``; entries are (length, flags) pairs."""


class ExtentCallback(ctypes.Structure):
    """``nbd_extent_callback``, passed by value."""

    _fields_ = [("callback", ExtentFunction), ("user_data", c_void_p), ("free", c_void_p)]


class CompletionCallback(ctypes.Structure):
    """``nbd_completion_callback``, passed by value; all null is NBD_NULL_COMPLETION."""

    _fields_ = [("callback", c_void_p), ("user_data", c_void_p), ("free", c_void_p)]


NO_COMPLETION = CompletionCallback()

_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "nbd_create": (c_void_p, []),
    "nbd_close": (None, [c_void_p]),
    "nbd_get_error": (c_char_p, []),
    "nbd_get_errno": (c_int, []),
    "nbd_get_version": (c_char_p, [c_void_p]),
    "nbd_set_export_name": (c_int, [c_void_p, c_char_p]),
    "nbd_set_pread_initialize": (c_int, [c_void_p, c_bool]),
    "nbd_add_meta_context": (c_int, [c_void_p, c_char_p]),
    "nbd_can_meta_context": (c_int, [c_void_p, c_char_p]),
    "nbd_aio_connect_unix": (c_int, [c_void_p, c_char_p]),
    "nbd_aio_is_connecting": (c_int, [c_void_p]),
    "nbd_get_size": (c_int64, [c_void_p]),
    "nbd_can_zero": (c_int, [c_void_p]),
    "nbd_can_flush": (c_int, [c_void_p]),
    "nbd_aio_block_status": (
        c_int64,
        [c_void_p, c_uint64, c_uint64, ExtentCallback, CompletionCallback, c_uint32],
    ),
    "nbd_poll": (c_int, [c_void_p, c_int]),
    "nbd_aio_pread": (c_int64, [c_void_p, c_void_p, c_size_t, c_uint64, CompletionCallback, c_uint32]),
    "nbd_aio_pwrite": (c_int64, [c_void_p, c_void_p, c_size_t, c_uint64, CompletionCallback, c_uint32]),
    "nbd_aio_zero": (c_int64, [c_void_p, c_uint64, c_uint64, CompletionCallback, c_uint32]),
    "nbd_aio_flush": (c_int64, [c_void_p, CompletionCallback, c_uint32]),
    "nbd_aio_command_completed": (c_int, [c_void_p, c_uint64]),
    "nbd_aio_in_flight": (c_int, [c_void_p]),
    "nbd_aio_disconnect": (c_int, [c_void_p, c_uint32]),
    "nbd_aio_is_dead": (c_int, [c_void_p]),
    "nbd_aio_is_closed": (c_int, [c_void_p]),
}


@functools.cache
def load() -> ctypes.CDLL:
    """Return the library with its signatures set.

    Raises: `Unsupported` when it is not installed or older than 1.12.
    """
    try:
        library = ctypes.CDLL(SONAME)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise Unsupported(f"the library {SONAME} cannot be loaded: {error}", hint=INSTALL) from error
    if _parse(version_of(library)) < OLDEST:
        raise Unsupported(f"libnbd {version_of(library)} is too old: 1.12 is needed", hint=INSTALL)
    return library


def version_of(library: ctypes.CDLL) -> str:
    """Return the version of a loaded library, such as ``1.14.2``."""
    handle = library.nbd_create()
    try:
        version: bytes = library.nbd_get_version(handle)
        return version.decode()
    finally:
        library.nbd_close(handle)


def _parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
