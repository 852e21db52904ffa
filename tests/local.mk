# tests/: unit tests (cmocka), integration tests, fuzz targets
AM_TESTS_ENVIRONMENT = srcdir='$(srcdir)'; builddir='$(builddir)'; export srcdir builddir;
TEST_EXTENSIONS = .sh
# A unit test that hangs is one that fails; no other is lost by it.
LOG_COMPILER = timeout -k 10 300

include tests/unit/local.mk
include tests/fuzz/local.mk
include tests/integration/local.mk
include tests/faults/local.mk

dist_check_SCRIPTS = tests/layering tests/exports
TESTS += tests/layering tests/exports
EXTRA_DIST += tools/demo tests/run tests/install-packages tests/pki tests/lib.sh tests/containers.inc tests/criu-private

# The unit tests under valgrind, which is told what it does not know by tests/native_shim.c; but for those that cannot be: a filter that
# lets a process do little lets valgrind do nothing.
valgrind_skip = tests/unit/test_pipe_child tests/unit/test_confine tests/unit/test_parcel
VALGRIND = env NOVA_PATIENCE=10 NOVA_NATIVE_OPEN='$(abs_builddir)/tests/native_open' \
	LD_PRELOAD='$(abs_builddir)/tests/.libs/libnative_shim.so' \
	valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --child-silent-after-fork=yes
valgrind_tests = $(filter-out $(valgrind_skip),$(unit_programs))
check-valgrind: $(unit_programs) tests/native_open tests/libnative_shim.la
	$(AM_V_at)rm -f $(unit_programs:=.log) $(unit_programs:=.trs)
	$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(valgrind_tests)' \
		LOG_COMPILER='$(VALGRIND)' TEST_SUITE_LOG=tests/valgrind.log

# What compilers and checkers find in the source without running it.
static_cflags = $(EVENT_CFLAGS) $(OPENSSL_CFLAGS) $(LZ4_CFLAGS) $(ZSTD_CFLAGS) $(XXHASH_CFLAGS) $(NUMA_CFLAGS) \
	$(JANSSON_CFLAGS) $(SQLITE_CFLAGS)
check-static: $(BUILT_SOURCES)
	$(AM_V_at)srcdir='$(abs_srcdir)' builddir='$(abs_builddir)' CC='$(CC)' CPPFLAGS='$(static_cflags)' $(srcdir)/tests/static $(STATIC_TOOLS)
EXTRA_DIST += tests/static
.PHONY: check-valgrind check-static
