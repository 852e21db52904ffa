# Fault sweeps: every row of every table, broken in every way (sweep.sh, replication.sh, local.sh), a soak by seed (soak.sh),
# and daemons killed at random moments (moments.sh).
#
#   make check-faults [PART=I/N] [RECORD=FILE]     all pairs, or every Nth of a migration's and of replication's; those in
#                                                  the file are done
#   make check-faults-sample [SAMPLE=N] [SEED=S]   a few of them
#   make check-soak [SWITCHOVERS=N] [SEED=S] [MOMENTS=1]
#   make check-moments [KILLS=N] [SEED=S]
EXTRA_DIST += tests/faults/sweep.sh tests/faults/whole.sh tests/faults/local.sh tests/faults/replication.sh \
	tests/faults/soak.sh tests/faults/moments.sh tests/faults/faults.inc tests/faults/pairs.inc
# A module, since it is preloaded and never linked.
check_LTLIBRARIES += tests/libbroken.la
tests_libbroken_la_SOURCES = tests/faults/broken.c
tests_libbroken_la_LDFLAGS = -module -avoid-version -rpath /nowhere
fault_needs = all $(check_PROGRAMS) $(check_LTLIBRARIES) guest/initrd
fault_env = srcdir=$(abs_srcdir) builddir=$(abs_builddir)
check-faults: $(fault_needs)
	$(AM_V_at)$(fault_env) $(srcdir)/tests/faults/local.sh
	$(AM_V_at)$(fault_env) $(srcdir)/tests/faults/whole.sh
check-faults-sample: SAMPLE = 6
check-faults-sample: SEED = 3
check-faults-sample: $(fault_needs)
	$(AM_V_at)$(fault_env) OPERATIONS='create delete' $(srcdir)/tests/faults/local.sh
	$(AM_V_at)$(fault_env) KINDS='live warm live-undo' SAMPLE=$(SAMPLE) SEED=$(SEED) $(srcdir)/tests/faults/sweep.sh
	$(AM_V_at)$(fault_env) KINDS=point SAMPLE=3 SEED=$(SEED) $(srcdir)/tests/faults/replication.sh
check-soak: $(fault_needs)
	$(AM_V_at)$(fault_env) $(srcdir)/tests/faults/soak.sh
check-moments: $(fault_needs)
	$(AM_V_at)$(fault_env) $(srcdir)/tests/faults/moments.sh
.PHONY: check-faults check-faults-sample check-soak check-moments
