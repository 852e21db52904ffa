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

# the codec of the data path
libnova_la_SOURCES += \
	engine/codec.c \
	engine/codec_block.h \
	engine/codec_decode.c \
	engine/codec_encode.c \
	engine/codec_pack.c \
	engine/codec_pack.h \
	engine/pipe.c
