#!/bin/sh
# Every verb of the driver docker: see verbs.inc.
driver=docker
. "${srcdir:-.}/tests/integration/verbs.inc"
