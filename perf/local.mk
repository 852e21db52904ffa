# perf/: benchmarks of NovaCron beside QEMU's own migration, and of its parts alone (perf/README.md).
#
#   make bench [QUICK=1] [RESULTS=FILE] [RUNS=N]       loopback and 100 Mbit/s, and the parts alone
#   make bench-wan [QUICK=1] [RESULTS=FILE] [RUNS=N]   long and slow links, three workloads
#
# QUICK=1: one run, a smaller guest, fewer peers, at most 5 minutes. RESULTS: one JSON object a run is appended.
# Programs that measure one part (codec, link, monitors) are added to perf_programs; they print their figures, fail
# when a limit is not held, and read QUICK and RESULTS from the environment.
perf_programs = perf/qmp_sockets perf/link_bench
EXTRA_PROGRAMS += $(perf_programs)

perf_qmp_sockets_SOURCES = perf/qmp_sockets.c
perf_qmp_sockets_LDADD = libnova.la

perf_link_bench_SOURCES = perf/link_bench.c
perf_link_bench_LDADD = libnova.la

# Queries to 200 monitors while the same reactor moves bulk data.
bench-qmp: perf/qmp_sockets
	./perf/qmp_sockets

PYTHON3 = python3
QUICK =
RESULTS =
RUNS =
BENCH_FLAGS =
bench_env = $(if $(QUICK),QUICK=1) $(if $(RESULTS),RESULTS='$(RESULTS)')
bench_harness = $(PYTHON3) -B $(srcdir)/perf/bench --source $(srcdir) --build . $(if $(QUICK),--quick) \
	$(if $(RESULTS),--results '$(RESULTS)') $(if $(RUNS),--runs '$(RUNS)') $(BENCH_FLAGS)

# A part that misses its limit does not keep the others from being measured.
bench: all $(perf_programs) guest/initrd
	@failed=; \
	for program in $(perf_programs); do \
		echo "== $${program##*/}"; \
		env $(bench_env) ./$$program || failed="$$failed $${program##*/}"; \
	done; \
	echo "== migration"; \
	$(bench_harness) || failed="$$failed migration"; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }
bench-wan: all perf/linkem guest/initrd
	@failed=; \
	echo "== link use"; \
	env $(bench_env) $(PYTHON3) -B $(srcdir)/perf/link_use --build . || failed="$$failed link_use"; \
	echo "== migration"; \
	$(bench_harness) --wan || failed="$$failed migration"; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }
.PHONY: bench bench-wan bench-qmp

EXTRA_DIST += perf/README.md perf/results/README.md perf/results/2026-11-27-replica.json perf/results/2026-11-27-replica.svg perf/plot perf/link_use \
	perf/bench/__main__.py \
	perf/bench/guest.py \
	perf/bench/links.py \
	perf/bench/meter.py \
	perf/bench/peers.py \
	perf/bench/qmp.py \
	perf/bench/report.py \
	perf/bench/run.py \
	perf/bench/serial.py

# The link emulator, and the check that it does what it is told (root).
EXTRA_PROGRAMS += perf/linkem
perf_linkem_SOURCES = perf/linkem.c perf/shaper.c perf/shaper.h perf/tcpreset.c perf/tcpreset.h
EXTRA_DIST += perf/netns perf/linkem_check
check-linkem: perf/linkem
	LINKEM=perf/linkem $(srcdir)/perf/linkem_check
.PHONY: check-linkem

# The codec's cost per core beside that of its parts.
perf_programs += perf/codec_bench
perf_parts = perf/image.c perf/image.h perf/limits.c perf/limits.h
perf_codec_bench_SOURCES = perf/codec_bench.c $(perf_parts)
perf_codec_bench_LDADD = libnova.la

# The whole relay, per core, beside the same limits.
perf_programs += perf/relay_bench
perf_relay_bench_SOURCES = perf/relay_bench.c $(perf_parts)
perf_relay_bench_LDADD = libnova.la
# Many connections and many migrations in one daemon.
EXTRA_DIST += perf/load
perf-load: all $(check_PROGRAMS)
	$(AM_V_at)srcdir=$(abs_srcdir) builddir=$(abs_builddir) $(if $(MIGRATIONS),MIGRATIONS=$(MIGRATIONS)) $(if $(RESULTS),RESULTS='$(RESULTS)') $(srcdir)/perf/load
.PHONY: perf-load

# Containers by us and by the runtimes' own clients.
EXTRA_DIST += perf/latency
perf-latency: all
	$(AM_V_at)srcdir=$(abs_srcdir) builddir=$(abs_builddir) $(if $(RESULTS),RESULTS='$(RESULTS)') $(srcdir)/perf/latency
.PHONY: perf-latency

# How far behind a replica is, over a thin link that fails in the middle.
EXTRA_DIST += perf/replica
REPLICA_FLAGS =
perf-replica: all perf/linkem guest/initrd
	$(AM_V_at)$(PYTHON3) -B $(srcdir)/perf/replica --source $(srcdir) --build . $(if $(RESULTS),--results '$(RESULTS)') $(REPLICA_FLAGS)
.PHONY: perf-replica

# What decoding in a process of its own costs.
EXTRA_DIST += perf/sandbox
perf-sandbox: all $(check_PROGRAMS) guest/initrd
	$(AM_V_at)srcdir=$(abs_srcdir) builddir=$(abs_builddir) $(if $(RESULTS),RESULTS='$(RESULTS)') $(srcdir)/perf/sandbox
.PHONY: perf-sandbox

# One disk by QEMU's own mirror and by ours: by hand.
EXTRA_DIST += perf/disk_copy
