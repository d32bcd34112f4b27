"""The child that thaws a guest when its parent dies or takes too long: ``python -m vbackup_libvirt.thaw``.

Standard input: one line of JSON (uri, uuid, seconds, agent), then ``done`` when it is not needed any more. Standard
output: ``ready`` when it can act, and at the end ``idle``, or ``thawed``.
"""

from __future__ import annotations

import json
import select
import sys

from vbackup.api import VBackupError
from vbackup_libvirt.connection import Connection, translated
from vbackup_libvirt.freeze import impatient


def main() -> None:
    """Wait, and act if need be."""
    order = json.loads(sys.stdin.readline())
    connection = Connection(order["uri"])
    connection.domain(order["uuid"])
    print("ready", flush=True)  # noqa: T201 - this is how it talks to its parent
    ready, _, _ = select.select([sys.stdin], [], [], order["seconds"])
    if ready and sys.stdin.readline() == "done\n":
        print("idle")  # noqa: T201
        return
    try:
        connection.patiently(lambda: _thaw(connection, order["uuid"], order["agent"]))
    except VBackupError as error:
        sys.exit(str(error))
    print("thawed")  # noqa: T201


def _thaw(connection: Connection, uuid: str, agent_timeout: int) -> None:
    domain = connection.domain(uuid)
    with translated("thawing the guest"), impatient(domain, agent_timeout) as agent:
        agent.fsThaw()


if __name__ == "__main__":
    main()
