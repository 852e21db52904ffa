# Fuzz targets (libFuzzer), built by CC=clang configure --enable-fuzzing --disable-shared. One program per parser,
# tests/fuzz/fuzz_NAME.c, that starts from the seeds in tests/fuzz/corpus/NAME/. To add one: a line in
# fuzz_programs; its SOURCES, LDADD = $(fuzz_libs) and LDFLAGS = $(fuzz_link); its seeds. `make check-fuzz` runs
# each for FUZZ_SECONDS and fails on a crash, a leak or an input that takes longer than 10 s.
FUZZ_SECONDS = 20
FUZZ_FLAGS = -rss_limit_mb=2048 -timeout=10 -print_final_stats=1
fuzz_libs = libnova.la
fuzz_link = $(AM_LDFLAGS) -fsanitize=fuzzer -static
fuzz_programs = tests/fuzz/fuzz_qmp tests/fuzz/fuzz_frames

if FUZZING
fuzz_built = $(fuzz_programs)
noinst_PROGRAMS += $(fuzz_built)
endif

EXTRA_DIST += tests/fuzz/corpus

tests_fuzz_fuzz_frames_SOURCES = tests/fuzz/fuzz_frames.c
tests_fuzz_fuzz_frames_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_frames_LDFLAGS = $(fuzz_link)
tests_fuzz_fuzz_qmp_SOURCES = tests/fuzz/fuzz_qmp.c
tests_fuzz_fuzz_qmp_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_qmp_LDFLAGS = $(fuzz_link)

# New finds go into a directory of the build tree, crashing inputs beside it: the seeds stay as they are.
check-fuzz: $(fuzz_built)
	@test -n "$(fuzz_built)" || { echo "no fuzz targets: configure with CC=clang --enable-fuzzing --disable-shared"; exit 1; }
	@for program in $(fuzz_built); do \
		name=$${program##*/fuzz_}; \
		mkdir -p tests/fuzz/found/$$name; \
		echo "== $$name: $(FUZZ_SECONDS) s"; \
		./$$program -max_total_time=$(FUZZ_SECONDS) $(FUZZ_FLAGS) -artifact_prefix=tests/fuzz/$$name- \
			tests/fuzz/found/$$name $(srcdir)/tests/fuzz/corpus/$$name \
			>tests/fuzz/$$name.log 2>&1 || { tail -40 tests/fuzz/$$name.log; exit 1; }; \
		grep -E '^stat::(number_of_executed_units|average_exec_per_sec|new_units_added)' tests/fuzz/$$name.log; \
	done
.PHONY: check-fuzz

fuzz_programs += tests/fuzz/fuzz_stream tests/fuzz/fuzz_decoder tests/fuzz/fuzz_roundtrip
tests_fuzz_fuzz_stream_SOURCES = tests/fuzz/fuzz_stream.c
tests_fuzz_fuzz_stream_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_stream_LDFLAGS = $(fuzz_link)
tests_fuzz_fuzz_decoder_SOURCES = tests/fuzz/fuzz_decoder.c
tests_fuzz_fuzz_decoder_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_decoder_LDFLAGS = $(fuzz_link)
tests_fuzz_fuzz_roundtrip_SOURCES = tests/fuzz/fuzz_roundtrip.c
tests_fuzz_fuzz_roundtrip_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_roundtrip_LDFLAGS = $(fuzz_link)
fuzz_programs += tests/fuzz/fuzz_baseline
tests_fuzz_fuzz_baseline_SOURCES = tests/fuzz/fuzz_baseline.c
tests_fuzz_fuzz_baseline_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_baseline_LDFLAGS = $(fuzz_link)

fuzz_programs += tests/fuzz/fuzz_docker
tests_fuzz_fuzz_docker_SOURCES = tests/fuzz/fuzz_docker.c
tests_fuzz_fuzz_docker_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_docker_LDFLAGS = $(fuzz_link)
fuzz_programs += tests/fuzz/fuzz_parcel
tests_fuzz_fuzz_parcel_SOURCES = tests/fuzz/fuzz_parcel.c
tests_fuzz_fuzz_parcel_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_parcel_LDFLAGS = $(fuzz_link)
# Files and arguments.
EXTRA_DIST += tests/fuzz/scratch.h
fuzz_programs += tests/fuzz/fuzz_config tests/fuzz/fuzz_audit tests/fuzz/fuzz_store tests/fuzz/fuzz_command
tests_fuzz_fuzz_config_SOURCES = tests/fuzz/fuzz_config.c
tests_fuzz_fuzz_config_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_config_LDFLAGS = $(fuzz_link)
tests_fuzz_fuzz_audit_SOURCES = tests/fuzz/fuzz_audit.c
tests_fuzz_fuzz_audit_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_audit_LDFLAGS = $(fuzz_link)
tests_fuzz_fuzz_store_SOURCES = tests/fuzz/fuzz_store.c
tests_fuzz_fuzz_store_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_store_LDFLAGS = $(fuzz_link)
tests_fuzz_fuzz_command_SOURCES = tests/fuzz/fuzz_command.c
tests_fuzz_fuzz_command_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_command_LDFLAGS = $(fuzz_link)
fuzz_programs += tests/fuzz/fuzz_nbd
tests_fuzz_fuzz_nbd_SOURCES = tests/fuzz/fuzz_nbd.c
tests_fuzz_fuzz_nbd_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_nbd_LDFLAGS = $(fuzz_link)
fuzz_programs += tests/fuzz/fuzz_grpc
tests_fuzz_fuzz_grpc_SOURCES = tests/fuzz/fuzz_grpc.c
tests_fuzz_fuzz_grpc_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_grpc_LDFLAGS = $(fuzz_link)
fuzz_programs += tests/fuzz/fuzz_nowhere
tests_fuzz_fuzz_nowhere_SOURCES = tests/fuzz/fuzz_nowhere.c
tests_fuzz_fuzz_nowhere_LDADD = $(fuzz_libs)
tests_fuzz_fuzz_nowhere_LDFLAGS = $(fuzz_link)
