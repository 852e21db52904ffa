#!/bin/sh
# Live, warm and cold moves of a guest with machine type microvm: one serial port, so no heartbeat beside the console;
# no power button, so its cold move pulls the plug. The heart beats into /dev/null: an emulated guest with one process alone
# never empties its TLB, and QEMU 7.2 misses writes for as long (README, limits).
machine=microvm beats= workload="fill=text:30,rand:20,dup:5,zero:5 dirty=verify:20:4 hb=null"
. "${srcdir:-.}/tests/integration/moves.inc"
