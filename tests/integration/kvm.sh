#!/bin/sh
# The KVM driver against real QEMUs, without a daemon: every verb, on every machine type. The tests themselves are in
# test_kvm.c.
. "${srcdir:-.}/tests/lib.sh"
requires qemu-system-x86_64 qemu-img

NOVA_TEST_DIR=$tmp NOVA_GUEST=$NOVA_GUEST "${builddir:-.}/tests/integration/test_kvm"
