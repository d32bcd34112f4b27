"""How tests speak to the simulator itself: on a port of its own, not as a client of a vCenter."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlencode

SECONDS = 60


class Control:
    """Asks for things; ``control`` is the port."""

    control: int

    def _tell(self, command: str, **what: Any) -> Any:
        return self._ask(command, json.dumps(what).encode())

    def _ask(self, command: str, body: bytes = b"{}", **query: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.control, timeout=SECONDS)
        try:
            connection.request("POST", f"/_ctl/{command}?{urlencode(query)}", body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        assert response.status == 200, f"vcsim: {command}: {answer.decode()}"
        return json.loads(answer)
