# perf/: benchmarks; `make bench` and its kin run them
EXTRA_PROGRAMS += perf/qmp_sockets

perf_qmp_sockets_SOURCES = perf/qmp_sockets.c
perf_qmp_sockets_LDADD = libnova.la

# Queries to 200 monitors while the same reactor moves bulk data.
bench-qmp: perf/qmp_sockets
	./perf/qmp_sockets
.PHONY: bench-qmp
