"""Bare clients to measure transports against: of each library what makes it fastest, and nothing around it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

from vbackup.api import Transport
from vbackup.api.hypervisor import Buffer

SIZE = 16 << 20
"""Bytes of an object: about what a pack has."""
_NFS_PIECE = 8 << 20
"""Bytes in one call; libnfs cuts them into requests, and has these in flight at once."""


class Side(Protocol):
    """One that stores, and reads what it has stored; called by many threads at once."""

    def put(self, name: str, data: bytes) -> None:
        """Store; on return it survives a power failure."""

    def get(self, name: str) -> Buffer:
        """Read all of it."""


class Files:
    """What dd conv=fsync does, but without a process for each file."""

    def __init__(self, _options: Any, transport: Transport, _end: contextlib.ExitStack) -> None:
        assert transport.root
        self._root = transport.root

    def put(self, name: str, data: bytes) -> None:
        """See `Side.put`."""
        with (self._root / name).open("xb", buffering=0) as file:
            assert file.write(data) == len(data)
            os.fsync(file.fileno())

    def get(self, name: str) -> bytes:
        """See `Side.get`."""
        return (self._root / name).read_bytes()


class S3:
    """obstore, with one request for an object and no hash of its body."""

    def __init__(self, options: Any, _transport: Transport, _end: contextlib.ExitStack) -> None:
        from obstore.store import S3Store

        self._store = S3Store(
            options.bucket,
            endpoint=options.endpoint,
            region=options.region,
            access_key_id=options.access_key_id,
            secret_access_key=options.secret_access_key.resolve().decode(),
            unsigned_payload=True,
            client_options={"allow_http": True},
        )

    def put(self, name: str, data: bytes) -> None:
        """See `Side.put`."""
        self._store.put(name, data, use_multipart=False)

    def get(self, name: str) -> Buffer:
        """See `Side.get`."""
        return memoryview(self._store.get(name).bytes())


class Nfs(threading.local):
    """libnfs; each thread has a connection, and reads into the same memory again and again."""

    def __init__(self, options: Any, _transport: Transport, end: contextlib.ExitStack) -> None:
        from vbackup_nfs.library import load

        self._library = load()
        self._calls = self._library.functions
        self._calls.nfs_fsync.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        self._context = self._calls.nfs_init_context()
        end.callback(self._calls.nfs_destroy_context, self._context)
        url = urlsplit(options.url)
        self._call("nfs_mount", (url.hostname or "").encode(), url.path.encode())
        self._memory = ctypes.create_string_buffer(SIZE)

    def put(self, name: str, data: bytes) -> None:
        """See `Side.put`."""
        with self._opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            self._transfer("nfs_pwrite", file, ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p))
            self._call("nfs_fsync", file)

    def get(self, name: str) -> Buffer:
        """See `Side.get`."""
        with self._opened(name, os.O_RDONLY) as file:
            self._transfer("nfs_pread", file, ctypes.cast(self._memory, ctypes.c_void_p))
        return memoryview(self._memory)

    @contextlib.contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[ctypes.c_void_p]:
        file = ctypes.c_void_p()
        self._call("nfs_open2", f"/{name}".encode(), flags, 0o600, ctypes.byref(file))
        yield file
        self._call("nfs_close", file)

    def _transfer(self, what: str, file: ctypes.c_void_p, memory: ctypes.c_void_p) -> None:
        for at in range(0, SIZE, _NFS_PIECE):
            done = self._library.transfer(what, self._context, file, (memory.value or 0) + at, _NFS_PIECE, at)
            assert done == _NFS_PIECE, done

    def _call(self, name: str, *arguments: object) -> None:
        assert getattr(self._calls, name)(self._context, *arguments) >= 0, self._calls.nfs_get_error(self._context)


class Sftp(threading.local):
    """asyncssh with its own sizes of blocks; each thread has a connection and an event loop."""

    def __init__(self, options: Any, _transport: Transport, end: contextlib.ExitStack) -> None:
        self._root = options.path
        self._loop = asyncio.new_event_loop()
        end.callback(self._loop.close)
        ssh = self._loop.run_until_complete(_ssh(options))
        end.callback(lambda loop: loop.run_until_complete(ssh.wait_closed()), self._loop)
        end.callback(ssh.close)
        self._sftp = self._loop.run_until_complete(ssh.start_sftp_client())

    def put(self, name: str, data: bytes) -> None:
        """See `Side.put`."""
        self._loop.run_until_complete(self._put(name, data))

    def get(self, name: str) -> bytes:
        """See `Side.get`."""
        return self._loop.run_until_complete(self._get(name))

    async def _put(self, name: str, data: bytes) -> None:
        async with self._sftp.open(f"{self._root}/{name}", "xb") as file:
            await file.write(data)
            await file.fsync()

    async def _get(self, name: str) -> bytes:
        async with self._sftp.open(f"{self._root}/{name}", "rb") as file:
            return bytes(await file.read())


async def _ssh(options: Any) -> Any:
    import asyncssh

    cipher = ("aes128-gcm@openssh.com",)  # the quickest; asyncssh's own choice is much slower
    return await asyncssh.connect(
        options.host, options.port, config=None, username=options.user, client_keys=[str(options.identity)],
        known_hosts=str(options.known_hosts), encryption_algs=cipher, compression_algs=None,
    )  # fmt: skip


class Smb(threading.local):
    """smbclient; each thread has a connection, and for the server a client of its own, so that each has a process."""

    def __init__(self, options: Any, _transport: Transport, end: contextlib.ExitStack) -> None:
        import smbclient
        from smbprotocol.connection import Connection

        self._open_file = smbclient.open_file
        self._share = rf"\\{options.server}\{options.share}\{options.path}"
        connection = Connection(uuid.uuid4(), options.server, options.port)
        connection.connect()
        end.callback(connection.disconnect)
        self._there = {"port": options.port, "connection_cache": {f"{options.server}:{options.port}": connection}}
        smbclient.register_session(
            options.server, options.user, options.password.resolve().decode(), encrypt=options.encrypt, **self._there
        )

    def put(self, name: str, data: bytes) -> None:
        """See `Side.put`."""
        with self._opened(name, "xb") as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            file.flush()

    def get(self, name: str) -> bytes:
        """See `Side.get`."""
        with self._opened(name, "rb") as file:
            return bytes(file.read())

    def _opened(self, name: str, mode: str) -> Any:
        return self._open_file(f"{self._share}\\{name}", mode, buffering=0, share_access="rwd", **self._there)


BARE: dict[str, Callable[[Any, Transport, contextlib.ExitStack], Side]] = {
    "local": Files, "s3": S3, "nfs": Nfs, "iscsi": Files, "sftp": Sftp, "smb": Smb
}  # fmt: skip
"""Made of the options of a transport, and of the transport itself; what it opens is closed by the stack."""
