# qmp/: QMP client and server, migration-stream parser
libnova_la_SOURCES += \
	qmp/qmp.h
