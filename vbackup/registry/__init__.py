"""Which plugins there are, and the classes that they register."""

from vbackup.registry.manager import PluginInfo, Registry

__all__ = ["PluginInfo", "Registry"]
