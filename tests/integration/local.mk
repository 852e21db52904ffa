# integration tests: real daemons, real QEMU
