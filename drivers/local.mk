# drivers/: one folder per driver; the list of configure.ac names those that are built in
libnova_la_SOURCES += \
	drivers/builtin.c \
	drivers/kvm/adopt.c \
	drivers/kvm/agent.c \
	drivers/kvm/argv.c \
	drivers/kvm/backing.c \
	drivers/kvm/cancel.c drivers/kvm/kept.c drivers/kvm/nowhere.c drivers/kvm/nowhere.h drivers/kvm/take_back.c \
	drivers/kvm/carry.c \
	drivers/kvm/check.c \
	drivers/kvm/confined.c \
	drivers/kvm/direct.c \
	drivers/kvm/estimate.c \
	drivers/kvm/exports.c \
	drivers/kvm/foreign.c \
	drivers/kvm/guest.c \
	drivers/kvm/incoming.c \
	drivers/kvm/kvm.c \
	drivers/kvm/kvm.h \
	drivers/kvm/launch.c \
	drivers/kvm/lifecycle.c \
	drivers/kvm/list.c \
	drivers/kvm/jobs.c \
	drivers/kvm/mirror.c \
	drivers/kvm/point.c \
	drivers/kvm/outgoing.c \
	drivers/kvm/paths.c \
	drivers/kvm/probe.c \
	drivers/kvm/qemu.c \
	drivers/kvm/regain.c \
	drivers/kvm/replica.c \
	drivers/kvm/resize.c \
	drivers/kvm/snapshot.c \
	drivers/kvm/spec.c \
	drivers/kvm/stats.c \
	drivers/kvm/task.c \
	engine/drivers.h

# what drivers of containers share
libnova_la_SOURCES += \
	drivers/common/box.c \
	drivers/common/box.h \
	drivers/common/box_move.c \
	drivers/common/box_move.h \
	drivers/common/cgroup.c \
	drivers/common/cgroup.h \
	drivers/common/console.c \
	drivers/common/console.h \
	drivers/common/http.c \
	drivers/common/http.h \
	drivers/common/json_stream.c \
	drivers/common/json_stream.h \
	drivers/common/parcel.c \
	drivers/common/parcel.h \
	drivers/common/parcel_in.c \
	drivers/common/parcel_out.c \
	drivers/common/parcel_record.c \
	drivers/common/parcel_record.h \
	drivers/common/patience.c \
	drivers/common/patience.h \
	drivers/common/roots.c \
	drivers/common/roots.h \
	drivers/common/task.c \
	drivers/common/task.h

libnova_la_SOURCES += \
	drivers/docker/arrive.c \
	drivers/docker/checkpoint.c \
	drivers/docker/docker.c \
	drivers/docker/docker.h \
	drivers/docker/engine.c \
	drivers/docker/image.c \
	drivers/docker/lifecycle.c \
	drivers/docker/list.c \
	drivers/docker/logs.c \
	drivers/docker/move.c \
	drivers/docker/output.c \
	drivers/docker/probe.c \
	drivers/docker/spec.c \
	drivers/docker/stage.c \
	drivers/docker/warm.c \
	drivers/docker/watch.c \
	drivers/lxc/lifecycle.c \
	drivers/lxc/list.c \
	drivers/lxc/lxc.c \
	drivers/lxc/lxc.h \
	drivers/lxc/move.c \
	drivers/lxc/settings.c \
	drivers/lxc/snapshot.c \
	drivers/lxc/warm.c \
	drivers/lxc/watch.c
EXTRA_DIST += drivers/README.md

# The registry: struct nova_driver_NAME of each driver.
nodist_libnova_la_SOURCES = drivers/registry.c
CLEANFILES += drivers/registry.c
drivers/registry.c: Makefile
	$(AM_V_GEN)mkdir -p drivers && { \
		echo '/* Made from the list of drivers in configure.ac. */'; \
		echo '#include "engine/drivers.h"'; \
		for name in $(NOVA_DRIVERS); do echo "extern const struct nova_driver nova_driver_$$name;"; done; \
		echo 'const struct nova_driver *const nova_drivers[] = {'; \
		for name in $(NOVA_DRIVERS); do printf '\t&nova_driver_%s,\n' "$$name"; done; \
		printf '\tNULL,\n};\n'; } >$@

libnova_la_SOURCES += \
	drivers/containerd/archive.c \
	drivers/containerd/arrive.c \
	drivers/containerd/blob.c \
	drivers/containerd/bundle.c \
	drivers/containerd/checkpoint.c \
	drivers/containerd/containerd.c \
	drivers/containerd/containerd.h \
	drivers/containerd/create.c \
	drivers/containerd/image.c \
	drivers/containerd/import.c \
	drivers/containerd/list.c \
	drivers/containerd/move.c \
	drivers/containerd/probe.c \
	drivers/containerd/run.c \
	drivers/containerd/service.c \
	drivers/containerd/snapshot.c \
	drivers/containerd/spec.c \
	drivers/containerd/watch.c \
	drivers/kata/kata.c \
	drivers/kata/kata.h \
	drivers/kata/monitor.c
# containerd's messages: C out of the .proto file.
nodist_libnova_la_SOURCES += drivers/containerd/api.pb-c.c drivers/containerd/api.pb-c.h
BUILT_SOURCES += drivers/containerd/api.pb-c.h
CLEANFILES += drivers/containerd/api.pb-c.c drivers/containerd/api.pb-c.h
EXTRA_DIST += drivers/containerd/api.proto
drivers/containerd/api.pb-c.c: drivers/containerd/api.proto
	$(AM_V_GEN)mkdir -p drivers/containerd && \
		$(PROTOC_C) -I$(srcdir)/drivers/containerd --c_out=drivers/containerd $(srcdir)/drivers/containerd/api.proto
# Those that include it, when one of them is made alone in a fresh tree.
drivers/containerd/checkpoint.lo drivers/containerd/create.lo drivers/containerd/blob.lo drivers/containerd/service.lo \
drivers/containerd/watch.lo drivers/containerd/run.lo tests/unit/test_grpc.o tests/unit/test_containerd.o: drivers/containerd/api.pb-c.h
drivers/containerd/api.pb-c.h: drivers/containerd/api.pb-c.c
	@test -f $@ || { rm -f drivers/containerd/api.pb-c.c; $(MAKE) $(AM_MAKEFLAGS) drivers/containerd/api.pb-c.c; }
