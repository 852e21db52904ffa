# qmp/: QMP client and server, migration-stream parser
libnova_la_SOURCES += \
	qmp/agent.c \
	qmp/call.c \
	qmp/client.c \
	qmp/client.h \
	qmp/connection.c \
	qmp/control.c \
	qmp/listen.c \
	qmp/qmp.h \
	qmp/reader.c \
	qmp/reader.h \
	qmp/server.c \
	qmp/server.h \
	qmp/wire.c \
	qmp/wire.h

# a scanner of the migration stream, for the codec
libnova_la_SOURCES += qmp/stream.c qmp/stream.h
