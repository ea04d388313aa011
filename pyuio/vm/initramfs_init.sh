#!/bin/sh
# SPDX-License-Identifier: MIT
# The guest's first program. It runs from the initramfs that virtme-ng assembled, in place of virtme-ng's own /init:
# mounts the host's file system read-only with a tmpfs over it, and continues there with guest_init.sh.
#
# Every program here is static busybox from memory: under emulation, a program of the host takes 50 ms just to start.

fail() {
    echo "pyuio: $*" >/dev/console
    echo o >/proc/sysrq-trigger
    sleep 60
}

mount -t proc proc /proc
. /pyuio/config

if [ "$mode" = probe ]; then
    echo "pyuio: probe reached user space" >/dev/console
    echo o >/proc/sysrq-trigger
    sleep 60
fi

# Load the modules of virtme-ng's list, in its order, without those that this kind of guest does not need.
insmod() {
    case $1 in
        */fuse.*|*/virtiofs.*|*/virtio_mmio.*) ;;
        *) /bin/insmod "$1" ;;
    esac
}
. /modules/load_all.sh

mkdir -p /host /overlay
# Neither the host nor the guest writes through this mount, so everything may be cached: Python starts twice as fast.
# The guest may not see what the host changes meanwhile.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,access=any,msize=512000,cache=loose pyuio-root /host \
    || fail "cannot mount the host's file system: this kernel lacks 9p over virtio"
mount -t tmpfs -o mode=755 overlay /overlay
mkdir /overlay/upper /overlay/work
mount -t overlay -o lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work root /newroot \
    || fail "cannot lay a writable file system over the host's: this kernel lacks overlayfs"

cd /newroot || fail "no root file system"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount -t devtmpfs -o nosuid,mode=755 devtmpfs dev
mkdir -p dev/pts dev/shm
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 shm dev/shm
mount -t tmpfs -o nosuid,nodev,mode=755 run run
mount -t debugfs -o nosuid,nodev,noexec,mode=700 debugfs sys/kernel/debug
mount -t tracefs -o nosuid,nodev,noexec,mode=700 tracefs sys/kernel/tracing
mkdir -p run/lock run/udev
mkdir -m 700 run/pyuio
cp /bin/busybox /pyuio/* run/pyuio/

umount /proc
exec switch_root /newroot /run/pyuio/busybox sh /run/pyuio/guest_init.sh
