"""libnfs, a client of NFS in the process itself, by ctypes: the calls that we need of it.

Its shared library tells its interface by its number: 13 and 14 (libnfs 4 and 5) take the offset before the buffer, 17
(libnfs 7) after it, and it renames what a raw request is started with. Any other number is refused: a guess would write
rubbish into files. So is 16: the answers to some requests of libnfs 6.0.2 never came when many threads asked.
https://github.com/sahlberg/libnfs, include/nfsc/libnfs.h and libnfs-raw.h.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char, c_char_p, c_int, c_long, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache

from vbackup.api import Unsupported

_OFFSET_FIRST = ("libnfs.so.14", "libnfs.so.13")
_OFFSET_LAST = ("libnfs.so.17",)
_HINT = "install libnfs 4, 5 or 7 (Debian: apt install libnfs13 or libnfs14), or set `client: kernel`"

Answered = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_void_p)
"""``rpc_cb``: context, `SUCCESS` or another status, the answer, our own pointer."""
SUCCESS = 0
TIMED_OUT = 3
VERIFIER_BYTES = 8


class Stat(Structure):
    """``struct nfs_stat_64``."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            *("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks"),
            *("atime", "mtime", "ctime", "atime_nsec", "mtime_nsec", "ctime_nsec", "used"),
        )
    ]


class StatVfs(Structure):
    """``struct nfs_statvfs_64``."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            *("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "fsid", "flag", "namemax"),
        )
    ]


class _Time(Structure):
    _fields_ = [("seconds", c_long), ("microseconds", c_long)]


class Entry(Structure):
    """The beginning of ``struct nfsdirent``."""

    _fields_ = [
        ("next", c_void_p),
        ("name", c_char_p),
        ("inode", c_uint64),
        ("type", c_uint32),
        ("mode", c_uint32),
        ("size", c_uint64),
        ("atime", _Time),
        ("mtime", _Time),
    ]


class Handle(Structure):
    """``struct nfs_fh`` and ``nfs_fh3``: how the server calls a file."""

    _fields_ = [("length", c_int), ("bytes", c_void_p)]


class CommitArguments(Structure):
    """``COMMIT3args``; offset and count 0 mean the whole file."""

    _fields_ = [("file", Handle), ("offset", c_uint64), ("count", c_uint32)]


class CommitResult(Structure):
    """``COMMIT3res`` (RFC 1813, 3.3.21): attributes before and after are in the way of the verifier."""

    _fields_ = [("status", c_int), ("_attributes", c_uint64 * 16), ("verifier", c_char * VERIFIER_BYTES)]


_CONTEXT_CALLS = {
    "nfs_mount": (c_char_p, c_char_p),
    "nfs_open": (c_char_p, c_int, POINTER(c_void_p)),
    "nfs_open2": (c_char_p, c_int, c_int, POINTER(c_void_p)),
    "nfs_close": (c_void_p,),
    "nfs_fstat64": (c_void_p, POINTER(Stat)),
    "nfs_lstat64": (c_char_p, POINTER(Stat)),
    "nfs_statvfs64": (c_char_p, POINTER(StatVfs)),
    "nfs_rename": (c_char_p, c_char_p),
    "nfs_link": (c_char_p, c_char_p),
    "nfs_unlink": (c_char_p,),
    "nfs_mkdir2": (c_char_p, c_int),
    "nfs_opendir": (c_char_p, POINTER(c_void_p)),
    "nfs_get_fd": (),
    "nfs_which_events": (),
    "nfs_service": (c_int,),
}
"""What returns an int, negative for an error, and takes the context first."""
_SETTINGS = ("dircache", "autoreconnect", "timeout", "uid", "gid")


class Library:
    """The functions of the shared library, with the signatures they have there; see `load`."""

    def __init__(self, soname: str, functions: ctypes.CDLL) -> None:
        self.soname = soname
        self.functions = functions
        self._offset_last = soname in _OFFSET_LAST
        for name, arguments in _CONTEXT_CALLS.items():
            self._declare(name, c_int, c_void_p, *arguments)
        for setting in _SETTINGS:
            self._declare(f"nfs_set_{setting}", None, c_void_p, c_int)
        self._declare("nfs_init_context", c_void_p)
        self._declare("nfs_destroy_context", None, c_void_p)
        self._declare("nfs_get_error", c_char_p, c_void_p)
        self._declare("nfs_parse_url_dir", c_void_p, c_void_p, c_char_p)
        self._declare("nfs_get_writemax", c_uint64, c_void_p)
        self._declare("nfs_destroy_url", None, c_void_p)
        self._declare("nfs_readdir", POINTER(Entry), c_void_p, c_void_p)
        self._declare("nfs_closedir", None, c_void_p, c_void_p)
        self._declare("nfs_get_fh", POINTER(Handle), c_void_p)
        self._declare("nfs_get_rpc_context", c_void_p, c_void_p)
        transfer = (c_void_p, c_size_t, c_uint64) if self._offset_last else (c_uint64, c_uint64, c_void_p)
        for name in ("nfs_pread", "nfs_pwrite"):
            self._declare(name, c_int, c_void_p, c_void_p, *transfer)
        commit = (c_void_p, Answered, POINTER(CommitArguments), c_void_p)
        if self._offset_last:  # returns the request, or NULL
            self._declare("rpc_nfs3_commit_task", c_void_p, *commit)
        else:
            self._declare("rpc_nfs3_commit_async", c_int, *commit)

    def transfer(self, name: str, context: int | None, file: c_void_p, address: int, count: int, offset: int) -> int:
        """Call ``nfs_pread`` or ``nfs_pwrite`` in the order that this library wants; return bytes or -errno."""
        arguments = (address, count, offset) if self._offset_last else (offset, count, address)
        result: int = getattr(self.functions, name)(context, file, *arguments)
        return result

    def start_commit(self, context: int | None, answered: object, arguments: CommitArguments) -> bool:
        """Queue a COMMIT; return whether that worked."""
        rpc = self.functions.nfs_get_rpc_context(context)
        if self._offset_last:
            return bool(self.functions.rpc_nfs3_commit_task(rpc, answered, arguments, None))
        return bool(self.functions.rpc_nfs3_commit_async(rpc, answered, arguments, None) == 0)

    def _declare(self, name: str, result: type | None, *arguments: type) -> None:
        function = getattr(self.functions, name)
        function.restype = result
        function.argtypes = arguments


@cache
def load() -> Library:
    """Return the library that is installed. Raises: `Unsupported`."""
    for soname in (*_OFFSET_LAST, *_OFFSET_FIRST):
        try:
            functions = ctypes.CDLL(soname)
        except OSError:
            continue
        return Library(soname, functions)
    raise Unsupported("libnfs is not installed, or a version of it that is not known here", hint=_HINT)
