"""What hypervisor plugins share that have to do with QEMU: NBD, images, and qemu-nbd. It is no plugin itself."""
