#!/bin/sh
# SPDX-License-Identifier: MIT
# The guest's first program. It runs from the initramfs that virtme-ng assembled, in place of virtme-ng's own /init. It
# asks the host for its configuration, mounts the host's file system read-only with a tmpfs over it, and continues there
# with guest_init.sh. While it waits for the configuration, the host can save the guest's state: see saved_state.py.
#
# Every program here is static busybox from memory: under emulation, a program of the host takes 50 ms just to start.

fail() {
    echo "pyuio: $*" >/dev/console
    echo o >/proc/sysrq-trigger
    sleep 60
}

mount -t proc -o nosuid,nodev,noexec proc /proc
read -r mode </pyuio/mode
if [ "$mode" = probe ]; then
    echo "pyuio: probe reached user space" >/dev/console
    echo o >/proc/sysrq-trigger
    sleep 60
fi
mkdir -p /sys /host /overlay
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,mode=755 devtmpfs /dev
echo 1 >/proc/sys/kernel/sysrq # the host asks by it what the kernel does, if the guest stands still

# Load the modules of virtme-ng's list, in its order, without those that this kind of guest does not need.
insmod() {
    case $1 in
        */fuse.*|*/virtiofs.*|*/virtio_mmio.*) ;;
        *) /bin/insmod "$1" ;;
    esac
}
. /modules/load_all.sh
mount -t tmpfs -o mode=755 overlay /overlay

# Shows directories at a place, the first over the second if there are two, with what is written kept in memory.
layers=0
layer() {
    layers=$((layers + 1)) lower=
    place=$1
    shift
    for directory; do
        case $directory in
            *[,:\\]*) # these separate options
                under=/overlay/$layers.${lower:+second}
                mkdir -p "$under"
                mount --bind "$directory" "$under"
                directory=$under
                ;;
        esac
        lower=$lower${lower:+:}$directory
    done
    mkdir -p "$place" /overlay/$layers/upper /overlay/$layers/work
    mount -t overlay -o lowerdir=$lower,upperdir=/overlay/$layers/upper,workdir=/overlay/$layers/work root "$place"
}

find_port() {
    for port in /sys/class/virtio-ports/*; do
        name=
        read -r name 2>/dev/null <"$port/name"
        [ "$name" != pyuio.control ] || return 0
    done
    return 1
}
until find_port; do sleep 0.02; done # the names arrive a moment after the ports
exec 3<>"/dev/${port##*/}"
echo ready >&3
read -r size <&3
head -c "$size" <&3 >/pyuio/config
. /pyuio/config

if [ -n "$restored" ]; then
    date -u -s "@$restored" >/dev/null
    echo "$loglevel" >/proc/sys/kernel/printk
    # The devices of this run were not there when the state was saved. As firmware does, let them answer on their BARs.
    before=" $(echo /sys/bus/pci/devices/*) "
    echo 1 >/sys/bus/pci/rescan
    for device in /sys/bus/pci/devices/*; do
        case $before in *" $device "*) continue ;; esac
        [ ! -e "$device/driver" ] || continue
        printf '\003\001' | dd of="$device/config" bs=2 seek=2 conv=notrunc 2>/dev/null
    done
fi

# Neither the host nor the guest writes through this mount, so everything may be cached: Python starts twice as fast.
# The guest may not see what the host changes meanwhile.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,access=any,msize=512000,cache=loose pyuio-root /host \
    || fail "cannot mount the host's file system: this kernel lacks 9p over virtio"
no_overlay="cannot lay a writable file system over the host's: this kernel lacks overlayfs"
if [ -z "$system" ]; then
    layer /newroot /host || fail "$no_overlay"
else
    # Another processor: programs are from the system of system.py, everything else is the host's.
    layer /newroot "/host$system" || fail "$no_overlay"
    for directory in /host/*; do
        name=${directory##*/}
        case " $own dev proc run sys " in *" $name "*) continue ;; esac
        [ ! -d "$directory" ] || [ -h "$directory" ] || layer "/newroot/$name" "$directory" # or it is not for this user
    done
    layer "/newroot$prefix" "/host$environment" "/host$prefix" || fail "cannot show $prefix"
    layer "/newroot$sources" "/host$native" "/host$sources" || fail "cannot show $sources"
    mkdir -p "/newroot$cache"
    mount --bind "/host$cache" "/newroot$cache"
fi

cd /newroot || fail "no root file system"
mount --move /sys sys
mount --move /dev dev
mkdir -p dev/pts dev/shm
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 shm dev/shm
mount -t tmpfs -o nosuid,nodev,mode=755 run run
mount -t debugfs -o nosuid,nodev,noexec,mode=700 debugfs sys/kernel/debug
mount -t tracefs -o nosuid,nodev,noexec,mode=700 tracefs sys/kernel/tracing
mkdir -p run/lock run/udev
mkdir -m 700 run/pyuio
cp /bin/busybox /pyuio/* run/pyuio/
mount --move /proc proc

exec switch_root /newroot /run/pyuio/busybox sh /run/pyuio/guest_init.sh
