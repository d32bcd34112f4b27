"""One connection to an export by libnfs, NFSv3; not for many threads at once.

libnfs connects again by itself when a connection is lost, and sends again what was not answered, a few times at once:
a server that is away gives an error at once, one that is silent an error after the timeout.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_void_p

from vbackup_nfs import library
from vbackup_nfs.memory import address_of
from vbackup_nfs.options import Export, NfsOptions

_RPCBIND = 111
PIECE = 8 << 20
"""Bytes sent or asked for before we wait: enough requests in flight to fill the line. Each has the whole timeout."""
_RECONNECTS = 3
_POLL_MILLISECONDS = 100
_NAME = re.compile(rb"(?:NFS3|MNT3)ERR_(\w+)")
_NUMBER = re.compile(rb'failed with "(.{1,2})"', re.DOTALL)
_VAGUE = {errno.EFAULT, errno.EPERM, errno.ERANGE, errno.E2BIG}
_NAMES = {"BADHANDLE": errno.ESTALE, "NOTSUPP": errno.EOPNOTSUPP, "JUKEBOX": errno.EAGAIN}
_NUMBERS = {63: errno.ENAMETOOLONG, 66: errno.ENOTEMPTY, 69: errno.EDQUOT, 70: errno.ESTALE, 10008: errno.EAGAIN}
"""Statuses of RFC 1813, 2.6, that are not called or numbered as Linux does."""


class Connection:
    """A mounted export. Paths are absolute below it. Errors are `OSError`, as of a local file system."""

    def __init__(self, export: Export, options: NfsOptions) -> None:
        """Connect and mount; `close` it even if that fails in between, which is done here."""
        self._library = library.load()
        self._functions = self._library.functions
        self._timeout = options.timeout
        self._server = export.server
        self._verifier: bytes | None = None
        self._answer: tuple[int, bytes] | None = None  # an errno or 0, and the verifier
        self._answered = library.Answered(self._take_answer)  # kept here: libnfs may call it until we are closed
        address = _reach(export.server, options.mount_port or _RPCBIND, options.timeout)
        self._context: int | None = self._functions.nfs_init_context()
        if self._context is None:
            raise self._os_error(errno.ENOMEM)
        try:
            self._configure(options)
            self.call("nfs_mount", address.encode(), os.fsencode(export.path))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection. The server is told nothing: there is nothing that it keeps for us."""
        context, self._context = self._context, None
        if context is not None:
            self._functions.nfs_destroy_context(context)

    def call(self, name: str, *arguments: object) -> int:
        """Call a function of libnfs on this connection; return its result. Raises: `OSError`."""
        result: int = getattr(self._functions, name)(self._context, *arguments)
        if result < 0:
            raise self._error(result)
        return result

    @contextmanager
    def opened(self, path: bytes) -> Iterator[c_void_p]:
        """Give a file, open for reading. A symbolic link is ELOOP, wherever in the path it is."""
        file = c_void_p()
        self.call("nfs_open", path, os.O_RDONLY | os.O_NOFOLLOW, byref(file))
        try:
            yield file
        finally:
            self.call("nfs_close", file)  # asks the server nothing

    def create(self, path: bytes, mode: int, data: memoryview) -> None:
        """Make a file that is not there, and write it; on return the server has it on its disk.

        A server that restarts, or whose disk fails late, forgets what it has taken but not yet committed, and says so
        by another verifier (RFC 1813, 4.8): libnfs does not look at it. After a failure the file is not closed, which
        would commit once more and might take as long again.
        """
        file = c_void_p()
        self.call("nfs_open2", path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, byref(file))
        if self._verifier is None:
            self._verifier = self._commit(file)
        self._write(file, data)
        if self._commit(file) != self._verifier:
            raise OSError(errno.EIO, "the server has restarted or lost what was written")
        self.call("nfs_close", file)

    def read_into(self, file: c_void_p, address: int, count: int, offset: int) -> int:
        """Read up to ``count`` bytes to memory; return how many there were: less only at the end of the file."""
        done = 0
        while done < count:
            got = self._transfer("nfs_pread", file, address + done, min(PIECE, count - done), offset + done)
            if got < 0:
                raise self._error(got)
            if got == 0:
                break
            done += got
        return done

    def stat(self, path: bytes) -> library.Stat:
        """Return what is at a path; links are not followed."""
        stat = library.Stat()
        self.call("nfs_lstat64", path, byref(stat))
        return stat

    def stat_open(self, file: c_void_p) -> library.Stat:
        """Return what an open file is."""
        stat = library.Stat()
        self.call("nfs_fstat64", file, byref(stat))
        return stat

    def entries(self, path: bytes) -> Iterator[library.Entry]:
        """Yield what is in a directory, each to be used before the next one is asked for."""
        directory = c_void_p()
        self.call("nfs_opendir", path, byref(directory))
        try:
            while entry := self._functions.nfs_readdir(self._context, directory):
                yield entry.contents
        finally:
            self._functions.nfs_closedir(self._context, directory)

    def _configure(self, options: NfsOptions) -> None:
        self._functions.nfs_set_dircache(self._context, 0)  # it goes by mtime, which is too coarse
        self._functions.nfs_set_autoreconnect(self._context, _RECONNECTS)
        self._functions.nfs_set_timeout(self._context, int(options.timeout * 1000))
        if options.uid is not None:
            self._functions.nfs_set_uid(self._context, options.uid)
        if options.gid is not None:
            self._functions.nfs_set_gid(self._context, options.gid)
        # All versions can be told these only so. Other exports below ours are not our business.
        # With retransmissions libnfs 7 never gives up.
        words = ["version=3", "auto-traverse-mounts=0", "retrans=0"]
        words += [f"nfsport={options.port}"] if options.port else []
        words += [f"mountport={options.mount_port}"] if options.mount_port else []
        url = self._functions.nfs_parse_url_dir(self._context, f"nfs://server/?{'&'.join(words)}".encode())
        self._functions.nfs_destroy_url(url)

    def _write(self, file: c_void_p, data: memoryview) -> None:
        one = int(self._functions.nfs_get_writemax(self._context))
        done, piece = 0, PIECE
        with address_of(data) as address:
            while done < len(data):
                count = min(piece, len(data) - done)
                result = self._transfer("nfs_pwrite", file, address + done, count, done)
                if result == -errno.EFAULT and piece > one:
                    piece = one  # of several requests at once we do not learn why one has failed
                elif result <= 0:
                    raise self._error(result or -errno.EIO)
                else:
                    done += result

    def _transfer(self, name: str, file: c_void_p, address: int, count: int, offset: int) -> int:
        return self._library.transfer(name, self._context, file, address, count, offset)

    def _commit(self, file: c_void_p) -> bytes:
        """Let the server put a file on its disk; return the verifier of all that it has not lost since it gave it."""
        self._answer = None
        arguments = library.CommitArguments(self._functions.nfs_get_fh(file).contents, 0, 0)
        if not self._library.start_commit(self._context, self._answered, arguments):
            raise self._os_error(errno.ENOMEM)
        while self._answer is None:
            self._serve()
        code, verifier = self._answer
        if code:
            raise self._os_error(code)
        return verifier

    def _serve(self) -> None:
        """Let libnfs send and receive, or look at its clock."""
        descriptor = self._functions.nfs_get_fd(self._context)
        if descriptor < 0:
            raise self._os_error(errno.EIO)
        poll = select.poll()
        poll.register(descriptor, self._functions.nfs_which_events(self._context))
        events = dict(poll.poll(_POLL_MILLISECONDS))
        if self._functions.nfs_service(self._context, events.get(descriptor, 0)) < 0:
            raise self._os_error(errno.EIO)

    def _take_answer(self, _rpc: int, status: int, data: int, _private: int) -> None:
        if status == library.SUCCESS:
            result = library.CommitResult.from_address(data)
            verifier = ctypes.string_at(data + library.CommitResult.verifier.offset, library.VERIFIER_BYTES)
            self._answer = (_code_of(result.status), verifier)
        else:
            self._answer = (errno.ETIMEDOUT if status == library.TIMED_OUT else errno.EIO, b"")

    def _error(self, result: int) -> OSError:
        """Return what a negative result means: libnfs has wrong errnos for some, and tells others in its text only."""
        text: bytes = self._functions.nfs_get_error(self._context) or b""
        code = -result
        if code == errno.EINTR:
            code = errno.ETIMEDOUT
        elif b"_async failed" in text:
            code = errno.EIO
        elif code in _VAGUE and (name := _NAME.search(text)):
            code = _NAMES.get(name[1].decode(), getattr(errno, f"E{name[1].decode()}", errno.EIO))
        elif code == errno.EFAULT:  # libnfs 4 and 5 print the answer itself, which begins with the status
            number = _NUMBER.search(text)
            code = _code_of(int.from_bytes(number[1], "little")) if number else errno.EIO
        return self._os_error(code)

    def _os_error(self, code: int) -> OSError:
        if code == errno.ETIMEDOUT:
            return OSError(code, f"{self._server} did not answer within {self._timeout:g} s")
        if code == errno.EIO:
            return OSError(code, f"the connection to {self._server} was lost, or its disk fails")
        return OSError(code, os.strerror(code))


def _code_of(status: int) -> int:
    """Return the errno of a status of NFSv3, 0 for none: Linux has the same numbers, but for the later ones."""
    return status if status < errno.EDEADLK else _NUMBERS.get(status, errno.EIO)


def _reach(server: str, port: int, seconds: float) -> str:
    """Connect to a server once, to say why if that fails, for libnfs does not; return its address."""
    try:
        with socket.create_connection((server, port), seconds) as probe:
            return str(probe.getpeername()[0])
    except socket.gaierror as error:
        again = error.errno == socket.EAI_AGAIN
        code = errno.EHOSTUNREACH if again else errno.EADDRNOTAVAIL
        raise OSError(code, f"the name {server} cannot be resolved: {error.strerror}") from error
    except UnicodeError as error:
        raise OSError(errno.EADDRNOTAVAIL, f"{server} is not the name of a server: {error}") from error
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, f"{server} did not answer within {seconds:g} s") from error
    except OSError as error:
        raise OSError(error.errno, f"{server}, port {port}: {error.strerror}") from error
