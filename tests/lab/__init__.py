"""The lab: a real libvirtd of our own and real guests, for the tests and the demo."""
