# transport/: sessions over mutual TLS
libnova_la_SOURCES += \
	transport/address.c \
	transport/address.h \
	transport/bucket.c \
	transport/bucket.h \
	transport/channel.c \
	transport/dial.c \
	transport/frame.c \
	transport/frame.h \
	transport/grpc.c \
	transport/grpc.h \
	transport/grpc_json.c \
	transport/grpc_json.h \
	transport/inbox.c \
	transport/inbox.h \
	transport/lane.c \
	transport/link.h \
	transport/links.c \
	transport/measure.c \
	transport/outbox.c \
	transport/outbox.h \
	transport/pump.c \
	transport/pump.h \
	transport/request.c \
	transport/schedule.c \
	transport/session.c \
	transport/settings.c \
	transport/settings.h \
	transport/tls.c \
	transport/tls.h \
	transport/transport.c \
	transport/transport.h
EXTRA_DIST += transport/BLOCKS.md
