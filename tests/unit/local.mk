# Unit tests: one program per area, tests/unit/test_AREA.c. All link the whole library statically.
UNIT_LDADD = libnova.la $(CMOCKA_LIBS)
unit_programs = tests/unit/test_error
unit_programs += tests/unit/test_cursor
check_PROGRAMS += $(unit_programs)
TESTS += $(unit_programs)

tests_unit_test_error_SOURCES = tests/unit/test_error.c
tests_unit_test_error_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_transport
tests_unit_test_transport_SOURCES = tests/unit/test_transport.c tests/unit/transport_pair.h tests/unit/loop.h
tests_unit_test_transport_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_relay
tests_unit_test_relay_SOURCES = tests/unit/test_relay.c tests/unit/transport_pair.h tests/unit/loop.h
tests_unit_test_relay_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_transport_frames
tests_unit_test_transport_frames_SOURCES = tests/unit/test_transport_frames.c
tests_unit_test_transport_frames_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_transport_resume
tests_unit_test_transport_resume_SOURCES = tests/unit/test_transport_resume.c tests/unit/transport_pair.h tests/unit/loop.h
tests_unit_test_transport_resume_LDADD = $(UNIT_LDADD)

tests_unit_test_cursor_SOURCES = tests/unit/test_cursor.c
tests_unit_test_cursor_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_cli
tests_unit_test_cli_SOURCES = tests/unit/test_cli.c
tests_unit_test_cli_LDADD = libtools.la $(UNIT_LDADD)

unit_programs += tests/unit/test_follow
tests_unit_test_follow_SOURCES = tests/unit/test_follow.c tests/unit/loop.h
tests_unit_test_follow_LDADD = libtools.la $(UNIT_LDADD)

unit_programs += tests/unit/test_qmp_qemu
tests_unit_test_qmp_qemu_SOURCES = tests/unit/test_qmp_qemu.c tests/unit/loop.h
tests_unit_test_qmp_qemu_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_qmp
tests_unit_test_qmp_SOURCES = tests/unit/test_qmp.c tests/unit/loop.h
tests_unit_test_qmp_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_qmp_server
tests_unit_test_qmp_server_SOURCES = tests/unit/test_qmp_server.c tests/unit/loop.h
tests_unit_test_qmp_server_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_codec
tests_unit_test_codec_SOURCES = tests/unit/test_codec.c
tests_unit_test_codec_LDADD = $(UNIT_LDADD)
EXTRA_DIST += tests/fixtures/README.md tests/fixtures/guest.S tests/fixtures/qemu72-multifd.zst \
	tests/fixtures/qemu72-postcopy.zst tests/fixtures/qemu72-xbzrle.zst

unit_programs += tests/unit/test_pipe
tests_unit_test_pipe_SOURCES = tests/unit/test_pipe.c tests/unit/channel_pair.h
tests_unit_test_pipe_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_audit
tests_unit_test_audit_SOURCES = tests/unit/test_audit.c
tests_unit_test_audit_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_shaper
tests_unit_test_shaper_SOURCES = tests/unit/test_shaper.c perf/shaper.c perf/shaper.h perf/tcpreset.c perf/tcpreset.h
tests_unit_test_shaper_LDADD = $(CMOCKA_LIBS)
unit_programs += tests/unit/test_history
tests_unit_test_history_SOURCES = tests/unit/test_history.c
tests_unit_test_history_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_steps
tests_unit_test_steps_SOURCES = tests/unit/test_steps.c tests/unit/loop.h
tests_unit_test_steps_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_child
tests_unit_test_child_SOURCES = tests/unit/test_child.c tests/unit/loop.h
tests_unit_test_child_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_store
tests_unit_test_store_SOURCES = tests/unit/test_store.c
tests_unit_test_store_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_converge
tests_unit_test_converge_SOURCES = tests/unit/test_converge.c
tests_unit_test_converge_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_adapt
tests_unit_test_adapt_SOURCES = tests/unit/test_adapt.c
tests_unit_test_adapt_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_config
tests_unit_test_config_SOURCES = tests/unit/test_config.c
tests_unit_test_config_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_metrics
tests_unit_test_metrics_SOURCES = tests/unit/test_metrics.c
tests_unit_test_metrics_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_box
tests_unit_test_box_SOURCES = tests/unit/test_box.c
tests_unit_test_box_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_docker
tests_unit_test_docker_SOURCES = tests/unit/test_docker.c tests/unit/loop.h
tests_unit_test_docker_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_grpc
tests_unit_test_grpc_SOURCES = tests/unit/test_grpc.c tests/unit/loop.h
tests_unit_test_grpc_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_containerd
tests_unit_test_containerd_SOURCES = tests/unit/test_containerd.c tests/unit/loop.h
tests_unit_test_containerd_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_lxc
tests_unit_test_lxc_SOURCES = tests/unit/test_lxc.c
tests_unit_test_lxc_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_kvm_spec
tests_unit_test_kvm_spec_SOURCES = tests/unit/test_kvm_spec.c
tests_unit_test_kvm_spec_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_access
tests_unit_test_access_SOURCES = tests/unit/test_access.c tests/unit/access_host.h tests/unit/loop.h
tests_unit_test_access_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_admission
tests_unit_test_admission_SOURCES = tests/unit/test_admission.c tests/unit/access_host.h tests/unit/loop.h
tests_unit_test_admission_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_baseline
tests_unit_test_baseline_SOURCES = tests/unit/test_baseline.c
tests_unit_test_baseline_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_remote
tests_unit_test_remote_SOURCES = tests/unit/test_remote.c tests/unit/access_host.h tests/unit/transport_pair.h tests/unit/loop.h
tests_unit_test_remote_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_confine
tests_unit_test_confine_SOURCES = tests/unit/test_confine.c tests/unit/loop.h
tests_unit_test_confine_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_pipe_child
tests_unit_test_pipe_child_SOURCES = tests/unit/test_pipe_child.c tests/unit/loop.h
tests_unit_test_pipe_child_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_pace
tests_unit_test_pace_SOURCES = tests/unit/test_pace.c
tests_unit_test_pace_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_replica
tests_unit_test_replica_SOURCES = tests/unit/test_replica.c tests/unit/loop.h
tests_unit_test_replica_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_moves
tests_unit_test_moves_SOURCES = tests/unit/test_moves.c
tests_unit_test_moves_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_estimate
tests_unit_test_estimate_SOURCES = tests/unit/test_estimate.c tests/unit/loop.h
tests_unit_test_estimate_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_baseline_store
tests_unit_test_baseline_store_SOURCES = tests/unit/test_baseline_store.c tests/unit/access_host.h tests/unit/loop.h
tests_unit_test_baseline_store_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_disk
tests_unit_test_disk_SOURCES = tests/unit/test_disk.c tests/unit/channel_pair.h tests/unit/loop.h
tests_unit_test_disk_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_parcel
tests_unit_test_parcel_SOURCES = tests/unit/test_parcel.c tests/unit/loop.h
tests_unit_test_parcel_LDADD = $(UNIT_LDADD)
unit_programs += tests/unit/test_journal
tests_unit_test_journal_SOURCES = tests/unit/test_journal.c tests/unit/access_host.h tests/unit/loop.h
tests_unit_test_journal_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_liar
tests_unit_test_liar_SOURCES = tests/unit/test_liar.c tests/unit/liar.h tests/unit/access_host.h tests/unit/loop.h
tests_unit_test_liar_LDADD = $(UNIT_LDADD)

unit_programs += tests/unit/test_agent
tests_unit_test_agent_SOURCES = tests/unit/test_agent.c tests/unit/loop.h
tests_unit_test_agent_LDADD = $(UNIT_LDADD) $(EVENT_LIBS)
unit_programs += tests/unit/test_liar_qmp
tests_unit_test_liar_qmp_SOURCES = tests/unit/test_liar_qmp.c tests/unit/liar.h tests/unit/access_host.h tests/unit/loop.h
tests_unit_test_liar_qmp_LDADD = $(UNIT_LDADD) $(EVENT_LIBS)

unit_programs += tests/unit/test_nowhere
tests_unit_test_nowhere_SOURCES = tests/unit/test_nowhere.c
tests_unit_test_nowhere_LDADD = $(UNIT_LDADD)
