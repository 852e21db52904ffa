#!/bin/sh
# Live, warm and cold moves of a guest with machine type microvm: one serial port, so no heartbeat beside the console;
# no power button, so its cold move pulls the plug.
machine=microvm beats= workload="fill=text:30,rand:20,dup:5,zero:5 dirty=verify:20:4 hb=none"
. "${srcdir:-.}/tests/integration/moves.inc"
