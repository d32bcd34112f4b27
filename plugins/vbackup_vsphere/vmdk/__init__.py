"""streamOptimized VMDKs: the form in which vSphere exports and imports disks."""
