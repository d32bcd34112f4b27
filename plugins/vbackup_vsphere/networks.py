"""Which network here a card is plugged into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vbackup.api import NotFound
from vbackup_vsphere.document import Card

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session


def backings(session: Session, refs: Sequence[Any], cards: Sequence[Card]) -> dict[int, Any]:
    """Return the backing of each card by its key: the network of its name, or of the name that ``networks:`` says.

    ``refs`` are the networks that the machine's host has. Raises: `NotFound` for one that it has not.
    """
    if not cards:
        return {}
    known: dict[str, dict[str, Any]] = {}
    for ref in refs:
        known.setdefault(session.get(ref, "name").get("name", ""), {})[_kind(ref)] = ref
    return {card.key: _backing(session, card, known) for card in cards}


def wanted(session: Session, card: Card) -> str:
    """Return the name of the network here that a card is to be plugged into."""
    return session.options.networks.get(card.network.name, card.network.name)


def _kind(ref: Any) -> str:
    if isinstance(ref, vim.dvs.DistributedVirtualPortgroup):
        return "distributed"
    return "opaque" if isinstance(ref, vim.OpaqueNetwork) else "standard"


def _backing(session: Session, card: Card, known: Mapping[str, Mapping[str, Any]]) -> Any:
    network, name = card.network, wanted(session, card)
    if name not in known:
        was = f" (for {network.name})" if name != network.name else ""
        raise NotFound(
            f"{session.alias}: the machine's host has no network {name!r}{was}",
            hint=f"`networks:` says which stands for which: {{{network.name!r}: one of {', '.join(sorted(known))}}}",
        )
    kinds = known[name]
    kind = network.kind if network.kind in kinds else next(iter(kinds))
    ref, backing = kinds[kind], vim.vm.device.VirtualEthernetCard
    if kind == "distributed":
        group = session.get(ref, "key", "config.distributedVirtualSwitch")
        switch = session.get(group["config.distributedVirtualSwitch"], "uuid")["uuid"]
        port = vim.dvs.PortConnection(switchUuid=switch, portgroupKey=group["key"])
        return backing.DistributedVirtualPortBackingInfo(port=port)
    if kind == "opaque":
        summary = session.get(ref, "summary")["summary"]
        return backing.OpaqueNetworkBackingInfo(
            opaqueNetworkId=summary.opaqueNetworkId, opaqueNetworkType=summary.opaqueNetworkType
        )
    return backing.NetworkBackingInfo(deviceName=name, network=ref)
