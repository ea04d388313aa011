#!/bin/sh
# SPDX-License-Identifier: MIT
# The guest's process 1 after initramfs_init.sh: connects COMMAND with the ports to the host, runs it, reports its status.
# It runs under busybox, whose shell starts most of the tools used here without loading a program.
#
# Ports (virtio-serial, by name): control, which is descriptor 3, carries lines: "ready", "started" and "status N" to the
# host, the configuration and "size ROWS COLUMNS" from it. heartbeat carries an empty line every few seconds: the host
# takes a guest without it for one that stands still. cards carries what `pyuio vm plug` asks for, and the answers.
# stdin, stdout, stderr and tty carry bytes. The token of /run/pyuio/config ends stdout, stderr and tty, because the host
# cannot see that a port was closed.

run=/run/pyuio
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
. $run/config
printf %s "$script" >$run/command

b() { $run/busybox "$@"; }

b ln -sfn /proc/self/fd /dev/fd
b ln -sfn /proc/self/fd/0 /dev/stdin
b ln -sfn /proc/self/fd/1 /dev/stdout
b ln -sfn /proc/self/fd/2 /dev/stderr
echo "$hostname" >/proc/sys/kernel/hostname
b ip link set lo up

if [ -n "$modules" ]; then
    b mkdir -p "/lib/modules/$version"
    b mount --bind "$modules" "/lib/modules/$version"
fi

if [ -n "$out" ]; then
    b mkdir -p "$out"
    # With cache=mmap, writes reach the host at once, and still files can be mapped writable.
    b mount -t 9p -o rw,trans=virtio,version=9p2000.L,access=any,msize=512000,cache=mmap pyuio-out "$out"
fi

# udev gives devices that come later their names, rules and modules. It does not handle those present: coldplug takes 6 s.
for udevd in /usr/lib/systemd/systemd-udevd /lib/systemd/systemd-udevd; do
    if [ -x $udevd ]; then
        $udevd >/dev/null 2>&1 3>&- &
        break
    fi
done

# The names arrive a moment after the ports.
find_ports() {
    for port in /sys/class/virtio-ports/*; do
        name=
        read -r name 2>/dev/null <"$port/name"
        case "$name" in
            pyuio.*) b ln -sfn "/dev/${port##*/}" "$run/port.${name#pyuio.}" ;;
        esac
    done
    for name in control heartbeat cards tty stdin stdout stderr; do
        [ -c $run/port.$name ] || return 1
    done
}
until find_ports; do b sleep 0.02; done

# read waits without a process of its own; nothing is ever written to the pipe.
b mkfifo $run/never
while echo; do read -r -t "$heartbeat" _; done <>$run/never >$run/port.heartbeat 3>&- &

# COMMAND gets pipes, not the ports: a port can be opened only once, which would break /dev/stdout.
relay_out() {
    b mkfifo $run/$1
    { b cat $run/$1; printf %s "$token"; } >$run/port.$1 3>&- &
    relays="$relays $!"
}

command="$run/busybox sh $run/command" relays=
case $ttys in *0*) ;; *) b mkfifo $run/stdin; b cat $run/port.stdin 3>&- >$run/stdin & command="$command <$run/stdin" ;; esac
case $ttys in *1*) ;; *) relay_out stdout; command="$command >$run/stdout" ;; esac
case $ttys in *2*) ;; *) relay_out stderr; command="$command 2>$run/stderr" ;; esac

# COMMAND runs in the foreground: a program that a shell starts with & ignores SIGINT, so that Python would not react to
# Ctrl-C. It runs in a subshell: the end of a child of this shell would interrupt the opening of the pipes.
echo started >&3
if [ -z "$ttys" ]; then
    (eval "exec $run/busybox setsid $command 3>&-")
    status=$?
else
    # script(1) gives COMMAND a terminal of its own and copies between that and the port.
    echo "$run/busybox stty $stty rows $rows cols $columns; $run/busybox tty >$run/tty; exec $command" >$run/in_tty
    while read -r word rows columns; do
        [ "$word" != size ] || b stty -F "$(b cat $run/tty)" rows "$rows" cols "$columns"
    done <&3 &
    {
        SHELL=/bin/sh script -qefc "exec $run/busybox sh $run/in_tty" /dev/null
        status=$?
        printf %s "$token"
    } <>$run/port.tty >&0 2>/dev/null 3>&-
fi

# Processes that COMMAND left running must not keep its output open: kill all but this shell and the copying.
for process in /proc/[0-9]*; do
    [ $process/exe -ef $run/busybox ] || kill -9 ${process#/proc/} 2>/dev/null
done
b sync
echo "status $status" >&3
# The host ends QEMU when it has received everything.
b sleep 60
echo o >/proc/sysrq-trigger
b sleep 60
