"""Connecting to an SSH server: who we are, and that it is the one we mean."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from vbackup.api import AccessDenied, ConfigError, SecretRef, Unsupported, VBackupError
from vbackup_sftp.failures import Limit
from vbackup_sftp.loop import run
from vbackup_sftp.session import Session

if TYPE_CHECKING:
    from asyncssh import SFTPClient, SSHClientConnection, SSHKnownHosts

    from vbackup_sftp.transport import SftpOptions

_QUICK = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"  # preferred: they take two thirds of the CPU of the first


def connect(options: SftpOptions) -> Session:
    """Log in, and open an SFTP channel.

    Raises: `OSError` if the server cannot be reached; `AccessDenied` (also if its host key is not trusted),
    `ConfigError`, `Unsupported`.
    """
    try:
        import asyncssh
    except ImportError as error:
        raise ConfigError("the transport sftp needs asyncssh", hint="pip install 'vbackup[sftp]'") from error

    server = f"the SSH server {options.host}:{options.port}"
    arguments = _credentials(options)
    known = _trusted(options)
    limit = Limit(options.timeout)
    try:
        return run(_connect(options, limit, {**arguments, "known_hosts": known}))
    except asyncssh.HostKeyNotVerifiable as error:
        raise _not_trusted(options, known) from error
    except asyncssh.PermissionDenied as error:
        hint = f"may user {options.user} log in with this {'password' if options.password else 'key'}?"
        raise AccessDenied(f"{server} does not let {options.user} in", hint=hint) from error
    except asyncssh.KeyExchangeFailed as error:
        hint = "or it has no host key of the kind that is trusted"
        raise Unsupported(f"{server} and vbackup have no algorithm in common: {error}", hint=hint) from error
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, f"{server} did not answer within {options.timeout:g} s") from error
    except socket.gaierror as error:
        passing = error.errno == socket.EAI_AGAIN
        code = errno.EHOSTUNREACH if passing else errno.EADDRNOTAVAIL
        raise OSError(code, f"{options.host} has no address: {error.strerror}") from error
    except (OSError, asyncssh.Error) as error:
        text = (isinstance(error, OSError) and error.strerror) or str(error)
        raise OSError(errno.ENOTCONN, f"there is no connection to {server}: {text}") from error


async def _connect(options: SftpOptions, limit: Limit, arguments: dict[str, Any]) -> Session:
    import asyncssh

    ssh: SSHClientConnection | None = None
    try:
        async with asyncio.timeout(options.timeout), _agent_keys(options, arguments.pop("agent_path")) as keys:
            ssh = await asyncssh.connect(
                options.host,
                options.port,
                username=options.user,
                config=None,  # all is in our YAML
                encryption_algs=_QUICK,
                compression_algs=None,
                gss_kex=False,
                gss_auth=False,
                keepalive_interval=30,  # seconds: routers forget connections that are idle
                agent_path=None,
                x509_trusted_certs=None,  # else ~/.ssh/ca-bundle.crt says which hosts are trusted, too
                **arguments | keys,
            )
            return Session(ssh, await _channel(options, ssh), options.path, limit)
    except BaseException:
        if ssh:
            ssh.abort()
        raise


async def _channel(options: SftpOptions, ssh: SSHClientConnection) -> SFTPClient:
    import asyncssh
    from asyncssh import constants

    try:
        return await ssh.start_sftp_client()
    except asyncssh.ChannelOpenError as error:
        refused = {
            constants.OPEN_ADMINISTRATIVELY_PROHIBITED,
            constants.OPEN_UNKNOWN_CHANNEL_TYPE,
            constants.OPEN_REQUEST_SESSION_FAILED,  # asyncssh's own: the server knows no subsystem of this name
        }
        if error.code not in refused or ssh.is_closed():
            raise
        hint = "give it `Subsystem sftp internal-sftp`"
        raise Unsupported(f"the SSH server {options.host}:{options.port} offers no SFTP", hint=hint) from error


@asynccontextmanager
async def _agent_keys(options: SftpOptions, path: str | None) -> AsyncIterator[dict[str, Any]]:
    """Lend the keys of an agent, if one is to be asked: with none at all, asyncssh would take those of ~/.ssh."""
    import asyncssh

    if path is None:
        yield {}
        return
    async with asyncssh.SSHAgentClient(path) as agent:
        try:
            keys = list(await agent.get_keys())
        except ValueError as error:  # of asyncssh, whatever went wrong
            hint = "start ssh-agent, or give `identity` or `password`"
            raise ConfigError(f"ssh-agent at {path} does not answer: {error}", hint=hint) from error
        if not keys:
            hint = "`ssh-add` one, or give `identity` or `password`"
            raise ConfigError(f"ssh-agent at {path} has no key for {options.user} at {options.host}", hint=hint)
        yield {"client_keys": keys}


def _credentials(options: SftpOptions) -> dict[str, Any]:
    """Return the arguments of asyncssh that say who we are: exactly one way, and nothing of ~/.ssh besides."""
    import asyncssh

    if options.password:
        ways = {"preferred_auth": "password,keyboard-interactive", "client_keys": None, "agent_path": None}
        return ways | {"password": _password(options.password)}
    if not options.identity:
        if not (agent := os.environ.get("SSH_AUTH_SOCK")):
            raise ConfigError(
                f"nothing says how {options.user} logs in to {options.host}",
                hint="give `identity` or `password`, or start ssh-agent",
            )
        return {"agent_path": agent}
    passphrase = options.passphrase.resolve() if options.passphrase else None
    identity = options.identity.expanduser()
    try:
        key = asyncssh.read_private_key(str(identity), passphrase)
    except OSError as error:
        raise ConfigError(f"cannot read the private key {identity}: {error.strerror}") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigError(
            f"cannot use the private key {identity}: {error}", hint="is it a private key, with this `passphrase`?"
        ) from None
    return {"client_keys": [key], "agent_path": None}


def _password(secret: SecretRef) -> str:
    try:
        return secret.resolve().decode()
    except UnicodeDecodeError:
        raise ConfigError(f"the password from {secret} is not UTF-8") from None


def _trusted(options: SftpOptions) -> SSHKnownHosts:
    """Return the host keys that are trusted. Never None and never false, which to asyncssh mean any and the default."""
    import asyncssh

    path = options.known_hosts.expanduser()
    try:
        if options.host_key:
            asyncssh.import_public_key(options.host_key)  # a line that cannot be read would be passed over in silence
            return asyncssh.import_known_hosts(f"* {options.host_key}\n")
        return asyncssh.read_known_hosts(str(path))
    except FileNotFoundError:
        return asyncssh.import_known_hosts("")
    except OSError as error:
        raise ConfigError(f"cannot read the host keys in {path}: {error.strerror}") from error
    except (ValueError, asyncssh.KeyImportError) as error:
        raise ConfigError(f"cannot use the host keys of {options.host}: {error}") from error


def _not_trusted(options: SftpOptions, known: SSHKnownHosts) -> VBackupError:
    server = f"the SSH server {options.host}:{options.port}"
    if any(known.match(options.host, "", None if options.port == 22 else options.port)):
        hint = "either its key was changed, and you have to correct it here, or this is another machine"
        return AccessDenied(f"{server} shows another host key than the one that is trusted", hint=hint)
    port = "" if options.port == 22 else f"-p {options.port} "
    return AccessDenied(
        f"the host key of {server} is not known, so it may be any machine",
        hint=f"`ssh-keyscan {port}{options.host} >> {options.known_hosts}` adds it: compare it with the server's own",
    )
