# qmp/: QMP client and server, migration-stream parser
libnova_la_SOURCES += \
	qmp/call.c \
	qmp/client.c \
	qmp/client.h \
	qmp/qmp.h \
	qmp/reader.c \
	qmp/reader.h \
	qmp/wire.c \
	qmp/wire.h
