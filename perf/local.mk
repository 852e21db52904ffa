# perf/
