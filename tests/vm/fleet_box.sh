#!/bin/sh
# SPDX-License-Identifier: MIT
# test_fleet.py runs this in a guest: it makes a box of it that ssh reaches. Arguments: the directory of Dropbear's
# packages, and the public key that may log in. It prints "up" when ssh can come, and goes on until the guest ends.
set -e

modprobe virtio_net
udevadm settle # it gives the card another name
for network in /sys/class/net/*; do
    name=${network##*/}
    [ "$name" = lo ] || break
done
ip address add 10.0.2.15/24 dev "$name" # QEMU's network for users
ip link set "$name" up

# A home of its own: the host's may start much with each shell.
home=/run/root
mkdir -p -m 700 $home/.ssh /etc/dropbear
cp "$2" $home/.ssh/authorized_keys
chmod 600 $home/.ssh/authorized_keys
sed -i "s|^root:.*|root:x:0:0:root:$home:/bin/sh|" /etc/passwd

for libraries in "$1"/usr/lib/*-linux-gnu; do :; done
cd $home
env -i LD_LIBRARY_PATH="$libraries" "$1/usr/sbin/dropbear" -R -s -p 22 -P /run/dropbear.pid # keys made here; no passwords
echo up
exec sleep infinity
