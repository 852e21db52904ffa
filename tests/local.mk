# tests/: unit tests (cmocka), integration tests, fuzz targets
include tests/unit/local.mk
include tests/fuzz/local.mk
include tests/integration/local.mk

dist_check_SCRIPTS = tests/layering
TESTS += tests/layering
EXTRA_DIST += tests/run
