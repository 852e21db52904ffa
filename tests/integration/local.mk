# Integration tests: real daemons, real guests, tests/integration/NAME.sh (see tests/lib.sh). `make check-integration`
# runs them, INTEGRATION_JOBS at a time: more guests than processors make emulated guests unreliable.
INTEGRATION_JOBS = 1
integration_tests = tests/integration/moves_pc.sh tests/integration/cancel.sh tests/integration/bandwidth.sh \
	tests/integration/interrupt.sh tests/integration/refuse.sh tests/integration/identity.sh \
	tests/integration/kill_qemu.sh tests/integration/cut.sh tests/integration/relay_qemu.sh \
	tests/integration/remote.sh tests/integration/audit.sh \
	tests/integration/verbs_docker.sh tests/integration/verbs_containerd.sh tests/integration/verbs_lxc.sh tests/integration/kill_docker.sh \
	tests/integration/estimate.sh
integration_tests += tests/integration/hardening.sh
# Longer, and more at the mercy of a busy machine: by hand, or `make check-integration-long`.
long_tests = tests/integration/journal.sh tests/integration/overload.sh tests/integration/kvm.sh \
	tests/integration/moves_q35.sh tests/integration/kill_daemon.sh tests/integration/moves_microvm.sh \
	tests/integration/shared_disk.sh tests/integration/checkpoint_docker.sh tests/integration/baseline.sh \
	tests/integration/baseline_damage.sh tests/integration/baseline_owner.sh tests/integration/readopt.sh \
	tests/integration/there_and_back.sh tests/integration/big_guest.sh tests/integration/stall_abort.sh \
	tests/integration/stall_force.sh tests/integration/stall_postcopy.sh tests/integration/stall_throttle.sh \
	tests/integration/stall_wait.sh tests/integration/relay_libvirt.sh tests/integration/resume_cuts.sh \
	tests/integration/resume_addresses.sh tests/integration/resume_blackhole.sh \
	tests/integration/resume_postcopy.sh tests/integration/resume_switchover.sh tests/integration/doubt.sh
# A replica far away.
long_tests += tests/integration/replicate.sh
# A test runs again when its guest's kernel panicked under TCG: see tests/retry for what that is and is not.
SH_LOG_COMPILER = $(SHELL) $(srcdir)/tests/retry
EXTRA_DIST += tests/retry $(long_tests)

# What they run beside the product.
check_PROGRAMS += tests/heartbeat tests/console tests/free_port tests/tcp_proxy tests/crowd
tests_crowd_SOURCES = tests/crowd.c
tests_heartbeat_SOURCES = tests/guest/heartbeat.c tests/guest/sockets.h
tests_console_SOURCES = tests/guest/console.c tests/guest/sockets.h
tests_free_port_SOURCES = tests/free_port.c
tests_tcp_proxy_SOURCES = tests/tcp_proxy.c
tests_tcp_proxy_LDADD = $(EVENT_LIBS)
# The KVM driver alone, without a daemon.
check_PROGRAMS += tests/integration/test_kvm
tests_integration_test_kvm_SOURCES = tests/integration/test_kvm.c
tests_integration_test_kvm_LDADD = libnova.la $(CMOCKA_LIBS)
EXTRA_DIST += tests/guest/build tests/guest/init tests/guest/workload.c \
	$(integration_tests) tests/integration/moves.inc tests/integration/relay.inc tests/integration/resume.inc \
	tests/integration/slow.inc tests/integration/stall.inc tests/integration/verbs.inc
	$(integration_tests) tests/integration/moves.inc tests/integration/relay.inc tests/integration/resume.inc tests/integration/slow.inc tests/integration/stall.inc
	$(integration_tests) tests/integration/moves.inc tests/integration/relay.inc tests/integration/slow.inc tests/integration/stall.inc tests/integration/verbs.inc
	$(integration_tests) tests/integration/moves.inc tests/integration/relay.inc tests/integration/resume.inc tests/integration/baseline.inc tests/integration/slow.inc tests/integration/stall.inc

# The guest: Debian's kernel (downloaded) and an initrd with our workload.
guest/initrd: tests/guest/build tests/guest/init tests/guest/workload.c
	$(AM_V_GEN)CC='$(CC)' $(srcdir)/tests/guest/build guest

check-integration: all $(check_PROGRAMS) $(check_LTLIBRARIES) guest/initrd
	$(AM_V_at)rm -f $(integration_tests:.sh=.log) $(integration_tests:.sh=.trs)
	$(AM_V_at)test -z '$(integration_tests)' || \
		$(MAKE) $(AM_MAKEFLAGS) -j$(INTEGRATION_JOBS) check-TESTS TESTS='$(integration_tests)' \
		TEST_SUITE_LOG=tests/integration.log

check-integration-long: all $(check_PROGRAMS) $(check_LTLIBRARIES) guest/initrd
	$(AM_V_at)rm -f $(long_tests:.sh=.log) $(long_tests:.sh=.trs)
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) -j1 check-TESTS TESTS='$(long_tests)' TEST_SUITE_LOG=tests/integration.log

# They leave the build tree as they found it.
clean-local: clean-guest
clean-guest:
	rm -rf guest
.PHONY: check-integration check-integration-long clean-guest

# The direct path; disks that move with their guests.
integration_tests += tests/integration/disks_cold.sh
long_tests += tests/integration/direct.sh tests/integration/disks_warm.sh tests/integration/disks_live.sh tests/integration/disks_faults.sh tests/integration/disks_bandwidth.sh
# Moving containers.
integration_tests += tests/integration/boxmove_docker.sh tests/integration/boxmove_lxc.sh
long_tests += tests/integration/boxmove_warm_docker.sh tests/integration/boxmove_warm_lxc.sh
EXTRA_DIST += tests/integration/boxmove.inc tests/integration/rate.inc tests/integration/disks_moves.inc

# Kata's driver; containerd and its shims killed; its checkpoints (a CRIU is downloaded).
integration_tests += tests/integration/kata.sh tests/integration/kill_containerd.sh \
	tests/integration/images_containerd.sh
long_tests += tests/integration/checkpoint_containerd.sh
EXTRA_DIST += tests/kata-shim
