#!/bin/bash
# Builds a Debian image of three layers with umoci: an OCI layout in DIR/layout, its image called `app`.
# Without a network the base is a busybox.   debian.sh DIR
set -euo pipefail
dir=$1
mkdir -p "$dir"
base="$dir/base.tar"

if ! mmdebstrap --quiet --mode=root --variant=essential --skip=chroot/mount/sys,output/dev,output/mknod bookworm "$base" 2>"$dir/mmdebstrap.log"; then
    echo "no Debian from the network: the base is a busybox" >&2
    root="$dir/busybox"
    mkdir -p "$root"/{bin,etc,usr/share/doc/base,var/log}
    cp /bin/busybox "$root/bin/busybox"
    for name in sh ls cat; do ln -s busybox "$root/bin/$name"; done
    ln "$root/bin/busybox" "$root/usr/busybox"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    install -m 0640 -g 42 /dev/null "$root/etc/shadow"
    head -c 20000000 /dev/urandom >"$root/var/log/noise"
    tar --create --numeric-owner --file "$base" --directory "$root" .
    rm -r "$root"
fi

umoci init --layout "$dir/layout"
umoci new --image "$dir/layout:app"
umoci raw add-layer --image "$dir/layout:app" --history.created_by "debian base" "$base"
rm "$base"

# A layer on top: unpack, change, pack what changed.
layer() { # name script
    umoci unpack --image "$dir/layout:app" "$dir/bundle" >/dev/null
    (cd "$dir/bundle/rootfs" && bash -euc "$2")
    umoci repack --image "$dir/layout:app" --history.created_by "$1" "$dir/bundle" >/dev/null
    rm -rf "$dir/bundle"
}

layer "second" '
    rm -rf usr/share/doc/* var/cache/apt
    mkdir -p srv/app/deep etc/app
    for at in 1 2 3 4 5 6 7 8 9; do head -c 200000 /dev/urandom >srv/app/$at; done
    ln srv/app/1 srv/app/one-again
    ln -s ../../etc/app srv/app/link
    chown 1000:2000 srv/app/2
    chmod 4755 srv/app/3
    chmod 1777 srv/app/deep
    mkfifo srv/app/pipe
    mknod srv/app/null c 1 3
    truncate -s 3M srv/app/sparse
    printf data | dd of=srv/app/sparse bs=1 seek=1000000 conv=notrunc status=none
    setfattr -n user.note -v "of the second layer" srv/app/4
    touch -d "2001-02-03 04:05:06 UTC" srv/app/5
    touch -d "1969-12-31 00:00:00 UTC" srv/app/6
    name=$(printf "long%.0s" {1..60}); echo x >"srv/app/$name"
    chown 42:42 etc/passwd
'
layer "third" '
    rm srv/app/9 srv/app/link
    rm -rf srv/app/deep && echo "a file now" >srv/app/deep
    rm srv/app/8 && mkdir srv/app/8 && echo inside >srv/app/8/file
    echo changed >>etc/passwd
    mkdir -p opt/third && head -c 6000000 /dev/urandom >opt/third/data
    chmod 0700 srv/app
'
umoci config --image "$dir/layout:app" --config.cmd /bin/sh --author tests
umoci gc --layout "$dir/layout"
