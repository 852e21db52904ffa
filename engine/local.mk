# engine/: libnovacron's core
libnova_la_SOURCES += \
	engine/buf.c \
	engine/cleanup.h \
	engine/codec.h \
	engine/cursor.h \
	engine/error.c \
	engine/flow.h \
	engine/guest.c \
	engine/novacron.h \
	engine/op.c \
	engine/op.h \
	engine/pipe.h \
	engine/plugins.h \
	engine/steps.h
