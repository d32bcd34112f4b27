"""A site: the configuration and the registry turned into working parts, made when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from vbackup.api import (
    Codec,
    ConfigError,
    Executor,
    Hypervisor,
    HypervisorContext,
    NotFound,
    Target,
    TargetContext,
    Task,
    clock,
)
from vbackup.api import Transport as TransportRole
from vbackup.config import Config
from vbackup.config.models import EncodedTargetEntry
from vbackup.config.wrapping import Wrapping
from vbackup.guards.blame import Blame
from vbackup.guards.closing import Closable, closed
from vbackup.guards.codec import GuardedCodec
from vbackup.guards.executor import each_once
from vbackup.guards.hypervisor import GuardedHypervisor
from vbackup.guards.target import guarded_target
from vbackup.guards.transport import GuardedTransport
from vbackup.jobs.directories import directory
from vbackup.registry import Registry
from vbackup.wrappers.blocks import Blocks
from vbackup.wrappers.cache import CachingTransport
from vbackup.wrappers.limit import LimitedTransport
from vbackup.wrappers.log import LoggingTransport
from vbackup.wrappers.parallel import ParallelTransport
from vbackup.wrappers.readonly import ReadOnlyTransport
from vbackup.wrappers.retry import RetryingTransport

T = TypeVar("T")
EXECUTOR = "inprocess"
STORE_DEADLINE = 600.0
"""Seconds that a store may be away before a job fails for it, where the configuration does not say."""


class Site:
    """Working parts by their names in the configuration. A context manager; thread-safe.

    ``stop`` ends all work under way when it is set.
    """

    def __init__(
        self, config: Config, registry: Registry, *, state_dir: Path | None = None, cache_dir: Path | None = None
    ) -> None:
        self.config = config
        self.registry = registry
        self.stop = threading.Event()
        self.state_dir = state_dir or directory(
            "VBACKUP_STATE_DIR", "/var/lib/vbackup", "XDG_STATE_HOME", ".local/state"
        )
        self._cache_dir = cache_dir or directory("VBACKUP_CACHE_DIR", "/var/cache/vbackup", "XDG_CACHE_HOME", ".cache")
        self._lock = threading.RLock()
        self._hypervisors: dict[str, Hypervisor] = {}
        self._transports: dict[str, TransportRole] = {}
        self._targets: dict[str, Target] = {}
        self._past_caches = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def hypervisor(self, alias: str) -> Hypervisor:
        """Return a configured hypervisor. Raises `ConfigError` for an unknown name."""
        return self._part(self._hypervisors, alias, "hypervisor", self.config.hypervisors, self._new_hypervisor)

    def transport(self, alias: str) -> TransportRole:
        """Return a configured transport with its wrappers. Raises `ConfigError` for an unknown name."""
        return self._part(self._transports, alias, "transport", self.config.transports, self._new_transport)

    def target(self, alias: str) -> Target:
        """Return a configured target. Raises `ConfigError` for an unknown name."""
        return self._part(self._targets, alias, "target", self.config.targets, self._new_target)

    def file_writer(self) -> Hypervisor:
        """Return a hypervisor that restores disks to files with nothing else running, without configuration."""
        for name, cls in self.registry.hypervisors.items():
            if cls.writes_files:
                blame = self.registry.blame("hypervisors", name, f"hypervisor type {name}")
                with blame.calling("its constructor"):
                    made = cls(cls.options(), HypervisorContext(name, self._private("hypervisors", name)))
                return GuardedHypervisor(made, blame)  # type: ignore[return-value]  # see `_new_hypervisor`
        raise ConfigError("no installed plugin writes disk files", hint="name a hypervisor with --to")

    def execute(self, tasks: Sequence[Task], work: Callable[[Task], T], parallel: int) -> Iterator[tuple[Task, T]]:
        """Call ``work`` for each task on the executor that jobs run on; see `each_once`."""
        entry = self.config.executor
        kind = entry.type if entry is not None else EXECUTOR
        cls = self.registry.executors.get(kind)
        if cls is None:
            raise ConfigError(f"no installed plugin brings the executor {kind!r}", hint="see `vbackup plugins`")
        blame = self.registry.blame("executors", kind, f"executor {kind}")
        with blame.calling("its constructor"):
            executor: Executor = cls(entry if entry is not None else cls.options())
        yield from each_once(executor, tasks, work, parallel, blame)

    @contextmanager
    def past_caches(self) -> Iterator[None]:
        """Read what the stores themselves hold, for the time of the context: for whoever is to judge them."""
        with self._lock:
            self._past_caches += 1
        try:
            yield
        finally:
            with self._lock:
                self._past_caches -= 1

    def close(self) -> None:
        """Let go of everything. What fails is logged, and keeps nobody else from being closed."""
        with self._lock:
            roles: dict[str, Mapping[str, Closable]] = {
                "targets": self._targets, "transports": self._transports, "hypervisors": self._hypervisors
            }  # fmt: skip
            for role, parts in roles.items():
                for alias, part in parts.items():
                    closed(part, self.blame(role, alias))
            self._targets.clear()
            self._transports.clear()
            self._hypervisors.clear()

    def _part(
        self, made: dict[str, T], alias: str, role: str, configured: Mapping[str, Any], new: Callable[[str], T]
    ) -> T:
        with self._lock:
            if alias not in made:
                if alias not in configured:
                    known = ", ".join(sorted(configured)) or "none"
                    raise ConfigError(f"there is no {role} named {alias!r}", hint=f"configured: {known}")
                made[alias] = new(alias)
            return made[alias]

    def _new_hypervisor(self, alias: str) -> Hypervisor:
        entry = self.config.hypervisors[alias]
        context = HypervisorContext(alias, self._private("hypervisors", alias))
        blame = self.blame("hypervisors", alias)
        with blame.calling("its constructor"):
            made = self.registry.hypervisors[entry.type](entry, context)
        return GuardedHypervisor(made, blame)  # type: ignore[return-value]  # each guard has the class's attributes itself

    def _new_transport(self, alias: str) -> TransportRole:
        entry = self.config.transports[alias]
        wrapping = entry if isinstance(entry, Wrapping) else Wrapping()
        return self._wrapped(self.new_transport(alias), alias, wrapping)

    def new_transport(self, alias: str) -> TransportRole:
        """Return a new instance of a configured transport, with nothing around it but its guard."""
        entry = self.config.transports[alias]
        blame = self.blame("transports", alias)
        with blame.calling("its constructor"):
            made = self.registry.transports[entry.type](entry)
        return GuardedTransport(made, blame)

    def blame(self, role: str, alias: str) -> Blame:
        """Return who is to blame for what a configured part does."""
        kind = getattr(self.config, role)[alias].type
        return self.registry.blame(role, kind, f"{role.removesuffix('s')} {alias} (type {kind})")

    def _wrapped(self, transport: TransportRole, alias: str, by: Wrapping) -> TransportRole:
        """Put around a transport what its entry asks for, from the inside out; the order is `vbackup.wrappers`'."""
        if by.log:
            transport = LoggingTransport(transport, alias)
        if by.parallel is not None:
            transport = ParallelTransport(transport, by.parallel, wait=self.stop.wait)
        if (limit := by.limit) is not None:
            transport = LimitedTransport(
                transport,
                upload=lambda: limit.upload_at(clock.now()),
                download=lambda: limit.download_at(clock.now()),
                wait=self.stop.wait,
            )
        if by.read_only:
            transport = ReadOnlyTransport(transport, alias)
        deadline = STORE_DEADLINE if by.retry is None else by.retry.deadline
        transport = RetryingTransport(transport, deadline, wait=self.stop.wait)
        if by.cache is not None:
            blocks = Blocks(by.cache.path, by.cache.size, alias)
            transport = CachingTransport(transport, blocks, by.cache.prefixes, is_past=lambda: self._past_caches > 0)
        return transport

    def _new_target(self, alias: str) -> Target:
        entry = self.config.targets[alias]
        return self.make_target(alias, entry.key.resolve if isinstance(entry, EncodedTargetEntry) else no_key)

    def make_target(self, alias: str, secret: Callable[[], bytes]) -> Target:
        """Return a new instance of a configured target that gets its key from ``secret``."""
        entry = self.config.targets[alias]
        kind = self.registry.targets[entry.type]
        wrapping = self.config.transports[entry.transport]
        if kind.needs_files and isinstance(wrapping, Wrapping) and wrapping.read_only:
            raise ConfigError(
                f"target {alias} writes to transport {entry.transport} by the paths of files, past `read_only: true`",
                hint="mount the file system read-only instead (mount -o ro)",
            )
        steps = entry.codecs if isinstance(entry, EncodedTargetEntry) else ()
        context = TargetContext(
            alias=alias,
            transport=self.transport(entry.transport),
            codecs=tuple(self._new_codec(codec.type, codec) for codec in steps),
            codec=self._codec,
            secret=secret,
            cache_dir=self._cache_dir,
            state_dir=self.state_dir / "targets" / alias,
        )
        blame = self.blame("targets", alias)
        with blame.calling("its constructor"):
            made = kind(entry, context)
        return guarded_target(made, blame)  # type: ignore[return-value]  # likewise

    def _codec(self, name: str) -> Codec:
        cls = self.registry.codecs.get(name)
        if cls is None:
            raise NotFound(f"data was encoded with {name}, which no installed plugin knows", hint="install its plugin")
        return self._new_codec(name, cls.options())

    def _new_codec(self, name: str, options: Any) -> Codec:
        blame = self.registry.blame("codecs", name, f"codec {name}")
        kind = self.registry.codecs[name]
        with blame.calling("its constructor"):
            made, reader = kind(options), kind(kind.options())
        return GuardedCodec(made, blame, reader)  # type: ignore[return-value]  # likewise

    def _private(self, *parts: str) -> Path:
        path = self.state_dir.joinpath(*parts)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def no_key() -> bytes:
    """Stand for the key of a target that has none (see `Target.encodes`). Raises: `ConfigError`."""
    raise ConfigError("this type of target has no key")
