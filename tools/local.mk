# tools/: novacrond, novacron, their manual pages, completion and systemd unit
noinst_LTLIBRARIES += libtools.la
libtools_la_SOURCES = \
	tools/args.c \
	tools/args.h \
	tools/cli.c \
	tools/cli.h \
	tools/complete.c \
	tools/complete.h \
	tools/exitcode.c \
	tools/exitcode.h \
	tools/follow.c \
	tools/follow.h \
	tools/format.c \
	tools/format.h \
	tools/help.c \
	tools/help.h \
	tools/notify.c \
	tools/notify.h \
	tools/progress.c \
	tools/progress.h \
	tools/relay.c \
	tools/relay.h \
	tools/session.c \
	tools/session.h \
	tools/suggest.c \
	tools/suggest.h \
	tools/table.c \
	tools/table.h \
	tools/views.c \
	tools/views.h
libtools_la_LIBADD = -lm

