"""What is installed for the plugins outside of vbackup; see there."""

from tests.thirdparty.environments import environment, shared, wheels

__all__ = ["environment", "shared", "wheels"]
