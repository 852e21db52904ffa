# engine/: libnovacron's core
libnova_la_SOURCES += \
	engine/audit.c \
	engine/audit.h \
	engine/buf.c \
	engine/child.c \
	engine/child.h \
	engine/client.c \
	engine/client.h \
	engine/doctor.c \
	engine/doctor.h \
	engine/doctor_config.c \
	engine/doctor_host.c \
	engine/cleanup.h \
	engine/clock.h \
	engine/codec.h \
	engine/config.c \
	engine/confine.c \
	engine/confine.h \
	engine/converge.c \
	engine/converge.h \
	engine/cursor.h \
	engine/error.c \
	engine/flow.h \
	engine/guest.c \
	engine/metrics.c \
	engine/metrics.h \
	engine/novacron.h \
	engine/moves.c \
	engine/moves.h \
	engine/op.c \
	engine/op.h \
	engine/param.c \
	engine/pipe.h \
	engine/plugins.h \
	engine/process.c \
	engine/series.c \
	engine/series.h \
	engine/steps.c \
	engine/steps.h \
	engine/store.c \
	engine/store.h \
	engine/store_file.h \
	engine/store_salvage.c

# what is kept of guests that were here
libnova_la_SOURCES += \
	engine/baseline_store.c \
	engine/baseline_store.h \
	engine/chore.c \
	engine/chore.h \
	engine/migrate_baseline.c \
	engine/migrate_baseline.h

# disks on their way to another host
libnova_la_SOURCES += \
	engine/disk.h \
	engine/disk_in.c \
	engine/disk_out.c \
	engine/disk_record.c \
	engine/disk_record.h \
	engine/nbd.c \
	engine/nbd.h \
	engine/nbd_reader.c \
	engine/nbd_reader.h \
	engine/socket.c \
	engine/socket.h

# the host: guests, jobs, commands, migrations
libnova_la_SOURCES += \
	engine/admission.c \
	engine/commands.c \
	engine/debts.c \
	engine/estimate.c \
	engine/estimate.h \
	engine/estimate_content.c \
	engine/estimate_model.c \
	engine/estimate_probe.c \
	engine/copies.c \
	engine/execute.c \
	engine/failover.c \
	engine/fault_hook.c \
	engine/fault_hook.h \
	engine/guests.c \
	engine/handover.c \
	engine/host.c \
	engine/host.h \
	engine/journal.c \
	engine/jobs.c \
	engine/leftovers.c \
	engine/migrate.h \
	engine/migrate_command.c \
	engine/migrate_dest.c \
	engine/migrate_dest.h \
	engine/migrate_disks.c \
	engine/migrate_disks.h \
	engine/migrate_disks_in.c \
	engine/migrate_doubt.c \
	engine/migrate_incoming.c \
	engine/migrate_ready.c \
	engine/migrate_receive.c \
	engine/migrate_seeds.c \
	engine/migrate_rejoin.c \
	engine/migrate_path.c \
	engine/migrate_says.c \
	engine/migrate_session.c \
	engine/migrate_source.c \
	engine/migrate_source.h \
	engine/migrate_stream.c \
	engine/migrate_tail.c \
	engine/migrate_watch.c \
	engine/pace.c \
	engine/pace.h \
	engine/peers.c \
	engine/recover.c \
	engine/relay.c \
	engine/relay.h \
	engine/relay_report.c \
	engine/relay_stream.c \
	engine/remote.c \
	engine/replica.c \
	engine/replica_export.c \
	engine/replica_point.c \
	engine/replica_wait.c \
	engine/replicate.c \
	engine/replicate.h \
	engine/replicate_point.c \
	engine/replicate_ways.c \
	engine/resolve.c \
	engine/verbs.c

# the codec of the data path
libnova_la_SOURCES += \
	engine/adapt.c \
	engine/adapt.h \
	engine/baseline.c \
	engine/baseline.h \
	engine/baseline_index.c \
	engine/baseline_spool.c \
	engine/codec.c \
	engine/codec_block.h \
	engine/codec_decode.c \
	engine/codec_encode.c \
	engine/codec_pack.c \
	engine/codec_pack.h \
	engine/delta.c \
	engine/delta.h \
	engine/history.c \
	engine/history.h \
	engine/pipe.c \
	engine/pipe_child.c \
	engine/pipe_child.h
