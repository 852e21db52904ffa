#!/bin/sh
# Images of containerd as archives: what we export containerd's own client imports, and the other way round; an image of
# several layers runs; archives that are damaged or try to lead elsewhere are refused, and leave nothing.
. "${srcdir:-.}/tests/lib.sh"
. "$top/tests/containers.inc"
own_containerd_place "$0"
prepare_alone
make_rootfs
start_runtime containerd
start_daemon alpha

run_once() { # IMAGE COMMAND: what it says
	nova alpha create once --driver containerd --image "$1" --memory 64M --command /bin/sh --command -c --command "$2" >/dev/null
	nova alpha start once >/dev/null 2>"$tmp/err" || fail "$(cat "$tmp/err")"
	wait_for "it has ended" 10 guest_is alpha once stopped
	nova alpha logs once
	nova alpha delete once >/dev/null
}

images() {
	ctr_here images ls -q
}

nothing_half_made() {
	[ -z "$(ctr_here leases ls -q)" ] || fail "leases are left: $(ctr_here leases ls)"
	[ -z "$(ctr_here content active | awk 'NR > 1')" ] || fail "half-written blobs are left"
	[ -z "$(ls -d "$tmp"/alpha/state/image-* 2>/dev/null)" ] || fail "a directory is left: $(ls -d "$tmp"/alpha/state/image-*)"
}

say "ours to containerd's own client, and back"
nova alpha import "$tmp/alpha/fs.tar" --driver containerd --name bb:1 >/dev/null
nova alpha export "$tmp/alpha/ours.tar" --driver containerd --name bb:1 >/dev/null
ctr_here images rm --sync bb:1 >/dev/null
[ -z "$(ctr_here content ls -q)" ] || fail "blobs are left of an image that is gone: $(ctr_here content ls)"
ctr_here images import --snapshotter overlayfs "$tmp/alpha/ours.tar" >/dev/null
[ "$(run_once bb:1 'echo from ctr')" = "from ctr" ] || fail "the image does not run"
ctr_here images export "$tmp/alpha/theirs.tar" bb:1
ctr_here images rm --sync bb:1 >/dev/null
nova alpha import "$tmp/alpha/theirs.tar" --driver containerd >/dev/null
[ "$(run_once bb:1 'echo and back')" = "and back" ] || fail "the image does not run"
nothing_half_made

say "several layers"
oci=$tmp/alpha/oci
mkdir -p "$oci/blobs/sha256" "$tmp/alpha/second/etc"
echo two >"$tmp/alpha/second/etc/two"
tar -C "$tmp/alpha/second" -cf "$tmp/alpha/second.tar" .
put_blob() { # FILE: its digest
	digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
	cp "$1" "$oci/blobs/sha256/$digest"
	echo "sha256:$digest"
}
make_archive() { # FILE
	tar -C "$oci" -cf "$1" index.json blobs
}
one=$(put_blob "$tmp/alpha/fs.tar") two=$(put_blob "$tmp/alpha/second.tar")
jq -n --arg a "$one" --arg b "$two" '{architecture: "amd64", os: "linux", config: {Env: ["WHO=image"], WorkingDir: "/etc", User: "7:8"},
	rootfs: {type: "layers", diff_ids: [$a, $b]}}' >"$tmp/config"
config=$(put_blob "$tmp/config")
layer='application/vnd.oci.image.layer.v1.tar'
jq -n --arg c "$config" --arg a "$one" --arg b "$two" --arg t "$layer" --argjson sc "$(wc -c <"$tmp/config")" \
	--argjson sa "$(wc -c <"$tmp/alpha/fs.tar")" --argjson sb "$(wc -c <"$tmp/alpha/second.tar")" '{schemaVersion: 2,
	config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $c, size: $sc},
	layers: [{mediaType: $t, digest: $a, size: $sa}, {mediaType: $t, digest: $b, size: $sb}]}' >"$tmp/manifest"
manifest=$(put_blob "$tmp/manifest")
jq -n --arg m "$manifest" --argjson s "$(wc -c <"$tmp/manifest")" '{schemaVersion: 2, manifests: [{mediaType: "application/vnd.oci.image.manifest.v1+json",
	digest: $m, size: $s, annotations: {"io.containerd.image.name": "two:1"}}]}' >"$oci/index.json"
make_archive "$tmp/alpha/two.tar"
nova alpha import "$tmp/alpha/two.tar" --driver containerd >/dev/null
[ "$(run_once two:1 'echo $(busybox cat two) $WHO $(busybox id -u) $(busybox id -g)')" = "two image 7 8" ] ||
	fail "the image of two layers: $(run_once two:1 'busybox cat two; busybox id')"
nova alpha export "$tmp/alpha/two-again.tar" --driver containerd --name two:1 >/dev/null
ctr_here images rm --sync two:1 >/dev/null
nova alpha import "$tmp/alpha/two-again.tar" --driver containerd >/dev/null
[ "$(run_once two:1 'busybox cat two')" = two ] || fail "the image of two layers does not come back"
nothing_half_made
ctr_here images rm --sync two:1 >/dev/null

say "archives that lie"
refused() { # WORDS
	make_archive "$tmp/alpha/bad.tar"
	expect_refused "$1" nova alpha import "$tmp/alpha/bad.tar" --driver containerd
	rm "$tmp/alpha/bad.tar"
	[ "$(images)" = bb:1 ] || fail "there are images: $(images)"
	nothing_half_made
}
blob=$oci/blobs/sha256/${two#sha256:}
cp "$blob" "$tmp/good"
echo more >>"$blob"
refused 'is not what it is called'
rm "$blob"
refused 'is no OCI image'
ln -s /etc/passwd "$blob"
refused 'is no OCI image'
rm "$blob"
mkfifo "$blob"
refused 'is not a file'
rm "$blob"
cp "$tmp/good" "$blob"
cp "$oci/index.json" "$tmp/index"
jq '.manifests[0].digest = "sha256:../../../../etc/passwd"' <"$tmp/index" >"$oci/index.json"
refused 'no digest'
echo '{"manifests": [' >"$oci/index.json"
refused 'not JSON'
finish_alone
