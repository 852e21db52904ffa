#!/bin/sh
# A guest with a qcow2 disk on storage that both hosts see: what it wrote before and after the move is on the disk.
. "${srcdir:-.}/tests/lib.sh"
requires qemu-img
start_pair
disk=$tmp/shared/disk.qcow2
boot alpha g1 pc 256M "fill=text:10 dirty=verify:20:4" --disk "path=$disk,size=64M,shared=on"

write_block() { # HOST BLOCK TEXT
	guest_console "$1" g1 \
		"sh echo $3 | dd of=/dev/vda bs=512 seek=$2 conv=sync,fsync 2>/dev/null && echo WROTE $3" "^WROTE $3" 20 >/dev/null
}

read_block() { # HOST BLOCK TEXT: as the guest reads it from the disk, not from its cache
	guest_console "$1" g1 \
		"sh dd if=/dev/vda bs=512 skip=$2 count=1 iflag=direct 2>/dev/null | head -n 1 | sed s/^/READ:/" "^READ:$3" 20 >/dev/null
}

write_block alpha 100 before
move_checked alpha g1
read_block beta 100 before
write_block beta 200 after
move_checked beta g1
read_block alpha 100 before
read_block alpha 200 after

nova alpha stop g1 --force >/dev/null
qemu-img check -q "$disk" || fail "qemu-img check finds errors in the disk"
qemu-img convert -O raw "$disk" "$tmp/raw"
for block in 100:before 200:after; do
	found=$(dd if="$tmp/raw" bs=512 skip="${block%:*}" count=1 2>/dev/null | tr -d '\0\n ')
	[ "$found" = "${block#*:}" ] || fail "block ${block%:*} of the disk holds \"$found\""
done
finish
