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
	tools/progress_view.c \
	tools/progress_view.h \
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

bin_PROGRAMS += tools/novacron
tools_novacron_SOURCES = tools/novacron.c
tools_novacron_LDADD = libtools.la libnovacron.la $(EVENT_LIBS) $(JANSSON_LIBS)

sbin_PROGRAMS += tools/novacrond
tools_novacrond_SOURCES = tools/novacrond.c
tools_novacrond_CPPFLAGS = $(AM_CPPFLAGS) -DSYSCONFDIR='"$(sysconfdir)"'
tools_novacrond_LDADD = libtools.la libnovacron.la $(EVENT_LIBS) $(JANSSON_LIBS)

# The programs print their option tables into the prose of the templates.
man_MANS = tools/novacron.1 tools/novacrond.8 tools/novacrond.conf.5
EXTRA_DIST += tools/man/novacron.1.in tools/man/novacrond.8.in tools/man/novacrond.conf.5.in
CLEANFILES += $(man_MANS)
tools/novacron.1: $(srcdir)/tools/man/novacron.1.in tools/novacron$(EXEEXT)
	$(AM_V_GEN)tools/novacron --man < $(srcdir)/tools/man/novacron.1.in > $@.tmp && mv $@.tmp $@
tools/novacrond.8: $(srcdir)/tools/man/novacrond.8.in tools/novacrond$(EXEEXT)
	$(AM_V_GEN)tools/novacrond --man < $(srcdir)/tools/man/novacrond.8.in > $@.tmp && mv $@.tmp $@
tools/novacrond.conf.5: $(srcdir)/tools/man/novacrond.conf.5.in tools/novacrond$(EXEEXT)
	$(AM_V_GEN)tools/novacrond --man < $(srcdir)/tools/man/novacrond.conf.5.in > $@.tmp && mv $@.tmp $@

dist_bashcompletion_DATA = tools/completion/novacron tools/completion/novacrond

systemdsystemunit_DATA = tools/novacrond.service
EXTRA_DIST += tools/novacrond.service.in
CLEANFILES += $(systemdsystemunit_DATA)
tools/novacrond.service: $(srcdir)/tools/novacrond.service.in Makefile
	$(AM_V_GEN)sed 's|@sbindir[@]|$(sbindir)|g' $(srcdir)/tools/novacrond.service.in > $@.tmp && mv $@.tmp $@
