"""Contract suites and fakes, for the tests of plugins.

Nothing is imported here, so that the pytest plugin costs nothing where it is not used:

* `vbackup.testing.transport_contract.TransportContract`: subclass it, override the fixture ``transport``.
* `vbackup.testing.codec_contract.CodecContract`: subclass it, override the fixture ``codec``; needs Hypothesis.
* `vbackup.testing.transports`: `MemoryTransport` and `FaultyTransport`.
* `vbackup.testing.liars`: wrappers that change what is read, list wrong sizes or too little, or only add.
* `vbackup.testing.plugin`: fixtures, there wherever vbackup is installed.
"""
