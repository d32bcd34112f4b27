"""Which plugins there are, and the classes that they register."""

from vbackup.registry.entries import PluginInfo
from vbackup.registry.manager import Registry

__all__ = ["PluginInfo", "Registry"]
