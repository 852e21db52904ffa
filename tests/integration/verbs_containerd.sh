#!/bin/sh
# Every verb of the driver containerd: see verbs.inc.
driver=containerd
. "${srcdir:-.}/tests/integration/verbs.inc"
