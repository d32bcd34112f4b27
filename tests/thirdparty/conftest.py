"""Strangers' distributions. Their own tests are run from their wheels (test_thirdparty.py), never from here."""

from tests.thirdparty.environments import bare, environment, shared, wheels

__all__ = ["bare", "environment", "shared", "wheels"]

collect_ignore_glob = ["vbackup-*"]
