#!/bin/sh
# Disks move with a guest that is paused while its memory moves: it writes while its disks are copied.
mode=warm
. "${srcdir:-.}/tests/integration/disks_moves.inc"
