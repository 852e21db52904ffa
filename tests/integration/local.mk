# Integration tests: real daemons, real guests, tests/integration/NAME.sh (see tests/lib.sh). `make check-integration`
# runs them, INTEGRATION_JOBS at a time: more guests than processors make emulated guests unreliable.
INTEGRATION_JOBS = 1
integration_names = \
	moves_pc moves_q35 shared_disk cancel bandwidth interrupt refuse identity kill_qemu kill_daemon monitor cut \
	doubt overload baseline baseline_damage baseline_owner resume_cuts resume_addresses \
	relay_qemu estimate disks_cold disks_warm disks_live replicate replica_seeds replica_agent replica_return qemu_user \
	remote audit hardening \
	verbs_docker verbs_containerd verbs_lxc kata images_containerd kill_docker kill_containerd \
	boxmove_docker boxmove_lxc boxmove_containerd
# Longer, or more at the mercy of a busy machine: by hand, or `make check-integration-long`.
long_names = \
	moves_microvm big_guest there_and_back kvm direct \
	stall_wait stall_force stall_throttle stall_postcopy stall_abort \
	readopt journal \
	relay_libvirt resume_blackhole resume_postcopy postcopy_stop resume_switchover \
	disks_faults disks_bandwidth replica_users \
	boxmove_warm_docker boxmove_warm_lxc checkpoint_docker checkpoint_containerd
integration_tests = $(integration_names:%=tests/integration/%.sh)
long_tests = $(long_names:%=tests/integration/%.sh)
# A test runs again when its guest's kernel panicked under TCG: see tests/retry for what that is and is not.
SH_LOG_COMPILER = $(SHELL) $(srcdir)/tests/retry
EXTRA_DIST += tests/retry tests/memcheck $(long_tests)

# What they run beside the product.
check_PROGRAMS += tests/break_socket tests/heartbeat tests/console tests/free_port tests/tcp_proxy tests/crowd
tests_break_socket_SOURCES = tests/break_socket.c
tests_crowd_SOURCES = tests/crowd.c
tests_heartbeat_SOURCES = tests/guest/heartbeat.c tests/guest/sockets.h
tests_console_SOURCES = tests/guest/console.c tests/guest/sockets.h
tests_free_port_SOURCES = tests/free_port.c
tests_tcp_proxy_SOURCES = tests/tcp_proxy.c
tests_tcp_proxy_LDADD = $(EVENT_LIBS)
# For a daemon under valgrind (tests/memcheck).
check_PROGRAMS += tests/native_open
check_LTLIBRARIES = tests/libnative_shim.la
tests_native_open_SOURCES = tests/native_open.c
tests_libnative_shim_la_SOURCES = tests/native_shim.c
tests_libnative_shim_la_LDFLAGS = -module -avoid-version -rpath /nowhere
# The KVM driver alone, without a daemon.
check_PROGRAMS += tests/integration/test_kvm
tests_integration_test_kvm_SOURCES = tests/integration/test_kvm.c
tests_integration_test_kvm_LDADD = libnova.la $(CMOCKA_LIBS)
EXTRA_DIST += tests/guest/agent tests/guest/build tests/guest/init tests/guest/workload.c tests/kata-shim $(integration_tests) \
	tests/integration/baseline.inc tests/integration/boxmove.inc tests/integration/disks_moves.inc \
	tests/integration/moves.inc tests/integration/rate.inc tests/integration/relay.inc \
	tests/integration/replica.inc tests/integration/resume.inc tests/integration/slow.inc tests/integration/stall.inc \
	tests/integration/verbs.inc

# The guest: Debian's kernel (downloaded) and an initrd with our workload.
guest/initrd: tests/guest/build tests/guest/init tests/guest/workload.c
	$(AM_V_GEN)CC='$(CC)' $(srcdir)/tests/guest/build guest
guest/agent.cpio: tests/guest/agent guest/initrd
	$(AM_V_GEN)$(srcdir)/tests/guest/agent guest

check-integration: all $(check_PROGRAMS) $(check_LTLIBRARIES) guest/agent.cpio
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
