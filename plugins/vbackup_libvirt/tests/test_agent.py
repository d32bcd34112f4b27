"""Whether the agent in a guest answers."""

from __future__ import annotations

import pytest

from vbackup.api import NotFound, Unsupported
from vbackup.testing.lab.factory import GuestFactory
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import Hypervisors


@pytest.mark.guest
def test_the_agent_of_a_guest(make_hypervisor: Hypervisors, make_guest: GuestFactory) -> None:
    """Off, up, and with a guest that hangs."""
    hypervisor = make_hypervisor(agent_timeout=1)
    guest = make_guest(boot=True)
    assert not hypervisor.answers(guest.name)
    guest.start()
    guest.wait_ready()
    assert hypervisor.answers(guest.name)
    guest.pause()
    assert not hypervisor.answers(guest.name)
    guest.resume()
    guest.wait_ready()
    assert hypervisor.answers(guest.name)


def test_no_agent_to_ask(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """A channel with nobody behind it is silent; without a channel there is nothing to ask."""
    guest = make_guest()
    guest.start(paused=True)
    assert not hypervisor.answers(guest.name)
    guest.destroy()
    text = guest.domain.XMLDesc(0)
    begin, end = text.index("<channel"), text.index("</channel>") + len("</channel>")
    with guest.libvirtd.connection() as connection:
        connection.defineXML(text[:begin] + text[end:])
    with pytest.raises(Unsupported, match="no channel for a guest agent"):
        hypervisor.answers(guest.name)
    with pytest.raises(NotFound):
        hypervisor.answers("nobody")
