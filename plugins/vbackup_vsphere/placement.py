"""Where a machine is going to be: folder, pool, host, datastore, networks. Nothing is made here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pyVmomi import vim

from vbackup.api import ConfigError, NoSpace, NotFound, Unsupported
from vbackup_vsphere import places
from vbackup_vsphere.document import Home
from vbackup_vsphere.properties import moid

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session


class Datastore(NamedTuple):
    """A datastore; sizes in bytes."""

    ref: Any
    name: str
    capacity: int
    free: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a machine is going to be."""

    folder: Any
    pool: Any
    compute: Any
    host: Any
    datastore: Datastore
    datacenter: str
    """The path of its datacenter without the leading slash."""
    networks: Sequence[Any]
    """What its host can plug cards into."""
    versions: Sequence[int]
    """Versions of virtual hardware that can be made there, ascending; empty when it does not tell."""


class Chosen(NamedTuple):
    """Where the user or the machine's past wants it, and whether it must be there."""

    path: str
    is_must: bool


def choose(session: Session, home: Home, plugged: Collection[str], existing: Any, notes: list[str]) -> Placement:
    """Choose where a machine goes: beside ``existing``, as the options say, where it was, or where there is no choice.

    ``plugged`` are the networks that it needs: a host that has them is taken before one that has not.

    Raises: `NotFound`, `ConfigError` when the options must say it.
    """
    options = session.options
    now = session.get(existing, "parent", "resourcePool", "runtime.host", "config.files.vmPathName") if existing else {}
    folder = now.get("parent") or _folder(session, Chosen(options.folder or home.folder, bool(options.folder)), notes)
    host = now.get("runtime.host")
    pool = now.get("resourcePool")
    if isinstance(pool, vim.VirtualApp):
        notes.append(f"it is beside its vApp {session.get(pool, 'name').get('name')}, and no longer in it")
        pool = None
    if pool is None and host is not None:  # a template has none
        pool = _pool_of_host(session, host)
    if pool is None:
        pool, host = _pool(session, Chosen(options.pool or home.pool, bool(options.pool)), folder, notes)
    compute = session.get(pool, "owner")["owner"]
    datacenter = places.above(session, folder, vim.Datacenter)
    if datacenter != places.above(session, compute, vim.Datacenter):
        raise ConfigError(
            f"{session.alias}: {places.path_of(session, folder)} and {places.path_of(session, pool)} are of different "
            "datacenters",
            hint="give both `folder:` and `pool:`",
        )
    about = session.get(compute, "datastore", "network", "host", "environmentBrowser")
    wanted = Chosen(options.datastore or home.datastore, bool(options.datastore))
    if existing is not None:
        wanted = Chosen(str(now.get("config.files.vmPathName", "")).partition("]")[0].removeprefix("["), True)
    datastore = _datastore(session, about.get("datastore", ()), wanted, notes)
    host = _host(session, [host] if host is not None else about.get("host", ()), datastore, set(plugged))
    return Placement(
        folder=folder,
        pool=pool,
        compute=compute,
        host=host,
        datastore=datastore,
        datacenter=places.path_of(session, datacenter).lstrip("/"),
        networks=session.get(host, "network").get("network", ()),
        versions=_versions(session, about.get("environmentBrowser")),
    )


def _folder(session: Session, chosen: Chosen, notes: list[str]) -> Any:
    found = places.find(session, chosen.path) if chosen.path else None
    if isinstance(found, vim.Datacenter):
        found = session.get(found, "vmFolder")["vmFolder"]
    if isinstance(found, vim.Folder) and "VirtualMachine" in session.get(found, "childType").get("childType", ()):
        return found
    if chosen.is_must:
        known = [path for path in places.all_paths(session, vim.Folder) if path.count("/") > 1 and "/vm" in path]
        raise NotFound(
            f"{session.alias}: there is no folder {chosen.path} for machines", hint=f"there are {_listed(known)}"
        )
    roots = session.list(vim.Datacenter, "name", "vmFolder")
    if len(roots) != 1:
        raise ConfigError(
            f"{session.alias}: in which folder the machine goes must be said",
            hint=f"set `folder:`, such as one below {_listed('/' + row['name'] + '/vm' for _, row in roots)}",
        )
    found = roots[0][1]["vmFolder"]
    if chosen.path:
        notes.append(f"its folder {chosen.path} is not here; it is in {places.path_of(session, found)}")
    return found


def _pool(session: Session, chosen: Chosen, folder: Any, notes: list[str]) -> tuple[Any, Any]:
    """Return a resource pool, and a host if the user wants that one."""
    found = places.find(session, chosen.path) if chosen.path else None
    if isinstance(found, vim.ResourcePool) and not isinstance(found, vim.VirtualApp):
        return found, None
    if isinstance(found, vim.HostSystem):
        return _pool_of_host(session, found), found
    if isinstance(found, vim.ComputeResource):
        return session.get(found, "resourcePool")["resourcePool"], None
    if chosen.is_must:
        known = places.all_paths(session, vim.ResourcePool)
        raise NotFound(
            f"{session.alias}: there is no cluster, host or resource pool {chosen.path}",
            hint=f"there are {_listed(known)}",
        )
    datacenter = places.above(session, folder, vim.Datacenter)
    every = session.list(vim.ComputeResource, "name", "resourcePool")
    here = [values for ref, values in every if places.above(session, ref, vim.Datacenter) == datacenter]
    if len(here) != 1:
        raise ConfigError(
            f"{session.alias}: on which cluster or host the machine goes must be said",
            hint=f"set `pool:` to one of {_listed(places.path_of(session, v['resourcePool']) for v in here)}",
        )
    if chosen.path:
        notes.append(f"its resource pool {chosen.path} is not here; it is on {here[0]['name']}")
    return here[0]["resourcePool"], None


def _pool_of_host(session: Session, host: Any) -> Any:
    return session.get(session.get(host, "parent")["parent"], "resourcePool")["resourcePool"]


def _datastore(session: Session, refs: Sequence[Any], chosen: Chosen, notes: list[str]) -> Datastore:
    known: dict[str, Datastore] = {}
    for ref in refs:
        values = session.get(
            ref, "name", "summary.accessible", "summary.maintenanceMode", "summary.capacity", "summary.freeSpace"
        )
        if values.get("summary.accessible", True) and values.get("summary.maintenanceMode", "normal") == "normal":
            name = values["name"]
            known[name] = Datastore(ref, name, values.get("summary.capacity", 0), values.get("summary.freeSpace", 0))
    if chosen.path in known:
        return known[chosen.path]
    said = _listed(f"{one.name} ({one.free >> 30} GiB free)" for one in known.values())
    if chosen.is_must or not known:
        raise NotFound(
            f"{session.alias}: the datastore {chosen.path} is not there for the machine's host",
            hint=f"there are {said}",
        )
    if len(known) != 1:
        raise ConfigError(
            f"{session.alias}: on which datastore the disks go must be said", hint=f"set `datastore:` to one of {said}"
        )
    only = next(iter(known.values()))
    if chosen.path:
        notes.append(f"its datastore {chosen.path} is not here; it is on {only.name}")
    return only


def _host(session: Session, refs: Sequence[Any], datastore: Datastore, plugged: set[str]) -> Any:
    """Return a host that works and has the datastore: a cluster without DRS does not choose one itself."""
    names = {moid(ref): row.get("name", "") for ref, row in session.list(vim.Network, "name")}
    best: tuple[int, Any] | None = None
    for ref in refs:
        values = session.get(ref, "runtime.connectionState", "runtime.inMaintenanceMode", "datastore", "network")
        works = values.get("runtime.connectionState") == "connected" and not values.get("runtime.inMaintenanceMode")
        if works and datastore.ref in values.get("datastore", ()):
            lacks = len(plugged - {names.get(moid(one)) for one in values.get("network", ())})
            best = (lacks, ref) if best is None or lacks < best[0] else best
    if best is None:
        raise NotFound(
            f"{session.alias}: no host that is connected and not in maintenance has the datastore {datastore.name}",
            hint="set `pool:` and `datastore:` to where a machine can run",
        )
    return best[1]


def _versions(session: Session, browser: Any) -> list[int]:
    if browser is None:
        return []
    try:
        known = session.call(
            f"{session.alias}: asking for versions of virtual hardware",
            browser.QueryConfigOptionDescriptor,
            repeat=True,
        )
    except Unsupported:
        return []
    keys = [one.key for one in known or () if one.createSupported is not False]
    return sorted(int(key.removeprefix("vmx-")) for key in keys if key.removeprefix("vmx-").isdigit())


def version(wanted: str, placement: Placement, notes: list[str]) -> str:
    """Return the version of virtual hardware to make: the machine's, or the nearest that can be made."""
    number = int(wanted.removeprefix("vmx-") or 0)
    if not number or not placement.versions or number in placement.versions:
        return wanted
    best = next((one for one in placement.versions if one > number), placement.versions[-1])
    notes.append(f"its virtual hardware is vmx-{best:02}: {wanted} cannot be made on this host")
    return f"vmx-{best:02}"


def require_space(name: str, total: int, datastore: Datastore, notes: list[str]) -> None:
    """Refuse disks of ``total`` bytes that can never fit. Disks are thin: what they hold may be far less."""
    if total > datastore.capacity:
        raise NoSpace(
            f"the disks of {name} have {_gib(total)}, the datastore {datastore.name} {_gib(datastore.capacity)} in all",
            hint="choose another with `datastore:`",
        )
    if total > datastore.free:
        notes.append(
            f"its disks can grow to {_gib(total)}, of which {datastore.name} has only {_gib(datastore.free)} free"
        )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _listed(names: Any) -> str:
    shown = sorted(names)
    return ", ".join(shown[:20]) + (" ..." if len(shown) > 20 else "") if shown else "none"
