"""vbackup: back up and restore virtual machines."""

__version__ = "0.1.0"
