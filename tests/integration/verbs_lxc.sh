#!/bin/sh
# Every verb of the driver lxc: see verbs.inc.
driver=lxc
. "${srcdir:-.}/tests/integration/verbs.inc"
