#!/bin/sh
# Disks move with a guest that runs meanwhile.
mode=live
. "${srcdir:-.}/tests/integration/disks_moves.inc"
