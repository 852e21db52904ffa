#!/bin/sh
# Live, warm and cold moves of a guest with machine type pc.
machine=pc beats=yes workload="fill=text:30,rand:20,dup:5,zero:5 dirty=verify:20:4"
. "${srcdir:-.}/tests/integration/moves.inc"
