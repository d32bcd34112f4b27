"""A real libvirtd and real QEMU machines for tests, as root and with ``vbackup[libvirt]``: see README.md beside it."""
