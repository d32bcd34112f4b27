"""The calls of `vbackup_files.Files` over one SMB connection."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any

from smbprotocol.exceptions import NoMoreFiles, NoSuchFile
from smbprotocol.file_info import (
    FileDispositionInformation,
    FileFsFullSizeInformation,
    FileInformationClass,
    FileLinkInformation,
    FileRenameInformation,
)
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    DirectoryAccessMask,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    ShareAccess,
    SMB2QueryDirectoryRequest,
    SMB2QueryDirectoryResponse,
    SMB2QueryInfoRequest,
    SMB2SetInfoRequest,
)
from smbprotocol.session import Session as Login
from smbprotocol.structure import Structure
from smbprotocol.tree import TreeConnect

from vbackup_files import Found
from vbackup_smb.connection import CREDIT, LimitedConnection
from vbackup_smb.failures import LOST, as_os_error
from vbackup_smb.listing import found_as, parsed, space
from vbackup_smb.rest import read_rest, write_rest

_BLOCK = 1 << 20  # bytes in one request
_REQUESTS = 4  # at once
_ALL = ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE | ShareAccess.FILE_SHARE_DELETE
_LOOKS = FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_READS = FilePipePrinterAccessMask.FILE_READ_DATA | _LOOKS
_WRITES = FilePipePrinterAccessMask.FILE_WRITE_DATA | _LOOKS
_DELETES = FilePipePrinterAccessMask.DELETE | _LOOKS
_LISTED = 4 * CREDIT  # bytes of a listing in one answer
_FILE, _DIRECTORIES = CreateOptions.FILE_NON_DIRECTORY_FILE, CreateOptions.FILE_DIRECTORY_FILE
_LINK = CreateOptions.FILE_OPEN_REPARSE_POINT


class Session:
    """A connection to a share; for one caller at a time. Everything raises `OSError`."""

    def __init__(self, connection: LimitedConnection, login: Login, tree: TreeConnect, root: str) -> None:
        self._connection = connection
        self._login = login
        self._tree = tree
        self._root = root.replace("/", "\\")

    def write(self, path: str, data: memoryview) -> None:
        """Make a file; durable on return: FLUSH is fsync(2) on Samba, unless `strict sync = no`."""
        block = self._connection.block(min(_BLOCK, self._connection.max_write_size))
        starts = range(0, len(data), block)
        with self._opened(self._full(path), _WRITES, CreateDisposition.FILE_CREATE, _FILE) as file:
            requests = (file.write(bytes(data[at : at + block]), at, send=False) for at in starts)
            for at, wrote in zip(starts, list(self._each(requests)), strict=True):
                write_rest(file, data[at : at + block], at, wrote)
            with as_os_error():
                file.flush()

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """Read a file or a part of it."""
        block = self._connection.block(min(_BLOCK, self._connection.max_read_size))
        with self._opened(self._full(path), _READS, options=_FILE) as file:
            end = file.end_of_file if length is None else min(file.end_of_file, offset + length)
            parts = [(at, min(block, end - at)) for at in range(offset, end, block)]
            pieces = list(self._each(file.read(*part, send=False) for part in parts))
            return b"".join(read_rest(file, *part, piece) for part, piece in zip(parts, pieces, strict=True))

    def link(self, temporary: str, path: str) -> None:
        """Give a file its name if that is free, durably.

        By a second link: for a rename that must not replace Samba looks first, and then calls a rename(2) that does.
        """
        try:
            self._set_name(temporary, path, FileLinkInformation(), replace=False)
        except FileExistsError:
            self._settle(path)  # who is told that it exists may rely on it
            raise

    def rename(self, temporary: str, path: str) -> None:
        """Give a file its name, taking it from another, durably."""
        self._set_name(temporary, path, FileRenameInformation(), replace=True)

    def look(self, path: str) -> Found:
        """Tell what is there."""
        with self._opened(self._full(path), _LOOKS, options=_LINK) as file:
            name = path.rpartition("/")[2]
            return found_as(name, file.file_attributes, file.end_of_file, file.last_write_time.timestamp())

    def list(self, path: str) -> list[Found]:
        """Read a directory to its end."""
        found = []
        with self._opened(self._full(path), DirectoryAccessMask.FILE_LIST_DIRECTORY, options=_DIRECTORIES) as directory:
            while entries := self._entries(directory):
                found += [entry for entry in entries if entry.name not in (".", "..")]
        return found

    def make_directory(self, path: str) -> None:
        """Make a directory, durably; one that is there already is durable too when `FileExistsError` says so."""
        try:
            with self._opened(self._full(path), _LOOKS, CreateDisposition.FILE_CREATE, _DIRECTORIES):
                pass
        except FileExistsError:
            self._settle_again(path)
            raise
        self._settle(path)

    def remove(self, path: str) -> None:
        """Remove a file, durably, even if it is gone already; its name stays taken while another has it open."""
        try:
            with self._opened(self._full(path), _DELETES, options=_FILE | _LINK) as file:
                self._delete(file)
        except FileNotFoundError:
            self._settle_again(path)
            raise
        self._settle(path)

    def free(self) -> tuple[int, int]:
        """Return the bytes that are free to us, and of how many."""
        with self._opened(self._full(""), _LOOKS) as root:
            query, wanted = SMB2QueryInfoRequest(), FileFsFullSizeInformation()
            query["info_type"], query["file_info_class"] = wanted.INFO_TYPE, wanted.INFO_CLASS
            query["file_id"], query["output_buffer_length"] = root.file_id, len(wanted)
            return space(self._ask(query))

    def close(self) -> None:
        """Let go of it, whatever state it is in; the server closes what is open."""
        self._connection.disconnect(close=False)

    @contextmanager
    def _opened(
        self, full: str, access: int, disposition: int = CreateDisposition.FILE_OPEN, options: int = 0
    ) -> Iterator[Open]:
        """Open a file or directory, sharing it in every way: nobody else may be kept from naming or deleting it."""
        file = Open(self._tree, full)
        with as_os_error():
            file.create(ImpersonationLevel.Impersonation, access, 0, _ALL, disposition, options)
        try:
            yield file
        except OSError as error:
            if error.errno not in LOST:
                with suppress(OSError), as_os_error():
                    file.close()
            raise
        with as_os_error():
            file.close()

    def _full(self, path: str) -> str:
        return "\\".join(part for part in (self._root, path.replace("/", "\\")) if part)

    def _each(self, requests: Iterator[tuple[Structure, Callable[[Any], Any]]]) -> Iterator[Any]:
        """Send requests, several at once as far as the credit goes; yield what they return, in their order."""
        waiting: deque[tuple[Any, Callable[[Any], Any]]] = deque()
        with as_os_error():
            for message, receive in requests:
                cost = -(-max(1, message["length"].get_value()) // CREDIT)
                while waiting and (len(waiting) == _REQUESTS or self._connection.credits < cost):
                    request, answer = waiting.popleft()
                    yield answer(request)
                waiting.append((self._send(message, 2 * cost), receive))
            for request, answer in waiting:
                yield answer(request)

    def _send(self, message: Structure, credit: int | None = None) -> Any:
        return self._connection.send(message, self._login.session_id, self._tree.tree_connect_id, credit)

    def _ask(self, message: Structure) -> bytes:
        with as_os_error():
            return bytes(self._connection.receive(self._send(message))["data"].get_value())

    def _settle(self, path: str) -> None:
        """Make the name of a file durable by a FLUSH of its directory; above the share nobody can ask for that."""
        if full := self._full(path):
            access = DirectoryAccessMask.FILE_ADD_FILE | DirectoryAccessMask.FILE_LIST_DIRECTORY
            with self._opened(full.rpartition("\\")[0], access, options=_DIRECTORIES) as directory, as_os_error():
                directory.flush()

    def _settle_again(self, path: str) -> None:
        """Make durable what somebody else did, or we before a connection was lost; not where there is no directory."""
        with suppress(FileNotFoundError, *(() if path else (PermissionError,))):  # the root may have been made for us
            self._settle(path)

    def _set_name(self, temporary: str, path: str, name: Structure, *, replace: bool) -> None:
        name["replace_if_exists"] = replace
        name["file_name"] = self._full(path)
        try:
            with self._opened(self._full(temporary), _DELETES, options=_FILE) as file:
                self._set(file, name)
                if not replace:
                    self._delete(file)
        except OSError as error:
            raise self._precisely(error, path, replace=replace) from error
        self._settle(path)

    def _delete(self, file: Open) -> None:
        gone = FileDispositionInformation()
        gone["delete_pending"] = True
        self._set(file, gone)

    def _set(self, file: Open, information: Structure) -> None:
        change = SMB2SetInfoRequest()
        change["info_type"], change["file_info_class"] = information.INFO_TYPE, information.INFO_CLASS
        change["file_id"], change["buffer"] = file.file_id, information
        self._ask(change)

    def _precisely(self, error: OSError, path: str, *, replace: bool) -> OSError:
        """Find out whether something else than a file is in the way of a name: servers say so in many ways."""
        if error.errno in LOST:
            return error
        for parent in PurePosixPath(path).parents[:-1]:
            if self._is(str(parent), is_directory=False):
                return OSError(errno.ENOTDIR, f"{parent} is not a directory")
        if replace and self._is(path, is_directory=True):
            return OSError(errno.EISDIR, f"{path} is a directory")
        return error

    def _is(self, path: str, *, is_directory: bool) -> bool:
        try:
            return self.look(path).is_directory == is_directory
        except FileNotFoundError:
            return False

    def _entries(self, directory: Open) -> Sequence[Found]:
        """Return the next of a directory's entries; none after the last."""
        query, kind = SMB2QueryDirectoryRequest(), FileInformationClass.FILE_DIRECTORY_INFORMATION
        query["file_information_class"], query["file_id"] = kind, directory.file_id
        query["output_buffer_length"], query["buffer"] = _LISTED, "*".encode("utf-16-le")
        try:
            answer = SMB2QueryDirectoryResponse()
            answer.unpack(self._ask(query))
        except OSError as error:
            if isinstance(error.__cause__, NoMoreFiles | NoSuchFile):
                return ()
            raise
        return tuple(parsed(answer["buffer"].get_value()))
