# Fault sweep: every row of a migration, broken in every way (see sweep.sh).
EXTRA_DIST += tests/faults/sweep.sh
check-faults: all $(check_PROGRAMS) guest/initrd
	$(AM_V_at)srcdir=$(abs_srcdir) builddir=$(abs_builddir) $(srcdir)/tests/faults/sweep.sh
.PHONY: check-faults
