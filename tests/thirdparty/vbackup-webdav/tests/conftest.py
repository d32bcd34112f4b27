"""What the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apache import Apache


@pytest.fixture(scope="session")
def apache() -> Iterator[Apache]:
    """A WebDAV server."""
    with Apache() as server:
        yield server
