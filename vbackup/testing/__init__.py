"""Contract suites and fakes, for the tests of plugins.

Nothing is imported here, so that the pytest plugin costs nothing where it is not used.

What a plugin must do, as classes of tests to subclass; each says which fixtures it needs:

* `vbackup.testing.transport_contract.TransportContract`
* `vbackup.testing.codec_contract.CodecContract`, which needs Hypothesis
* `vbackup.testing.hypervisor_contract.HypervisorContract`
* `vbackup.testing.target_contract.TargetContract`
* `vbackup.testing.executor_contract.ExecutorContract`
* `vbackup.testing.events_contract.EventsContract`

What stands in for the rest of the world:

* `vbackup.testing.transports`: `MemoryTransport`, and `FaultyTransport`, which fails where it is told to
* `vbackup.testing.liars`: wrappers that change what is read, list wrong sizes or too little, or only add
* `vbackup.testing.hypervisors`: `FakeHypervisor`, with machines in memory (`vbackup.testing.guests`) that write
* `vbackup.testing.images`: a machine that is an image file
* `vbackup.testing.lab`: a libvirtd of its own, with real machines

What puts a plugin to the test as a whole:

* `vbackup.testing.site.Site`: the real ``vbackup`` command, on a configuration given as a dict
* `vbackup.testing.cycle`: back up, change, back up, restore every point, and compare it bit for bit
* `vbackup.testing.crash`: dying at every operation
* `vbackup.testing.leftovers`: what must not be left when a plugin's code has run

`vbackup.testing.plugin` has the fixtures, which are there wherever vbackup is installed.
"""
