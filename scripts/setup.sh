#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs what is missing: system packages (by apt, if it is here and permitted), a virtual environment in .venv, and
# pyuio with its compiled parts in it. If packages cannot be installed, one message names them before anything changes.
# With the argument arm64 it installs system packages only, those for guests with such a processor included; with
# emulation, those by which programs for another processor run here.
set -eu

PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin
debian= fedora= arch= apt=

# missing DEBIAN FEDORA ARCH: record the packages, by distribution, that have one missing thing
missing() {
    debian="$debian $1" fedora="$fedora $2" arch="$arch $3"
}

install_by_apt() {
    # shellcheck disable=SC2086
    {
        $as_root apt-get -q -o DPkg::Lock::Timeout=120 update &&
            $as_root apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends $debian
    } >&2 || { echo "set-up: apt-get failed; see above" >&2; exit 1; }
}

# wait_for_apt: end if it failed
wait_for_apt() { [ -z "$apt" ] || wait "$apt" || exit 1; }

# pip_install WORDS: into .venv
pip_install() {
    .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-compile "$@" || {
        wait_for_apt
        echo "set-up: pip failed; see above. Run make again when the cause is removed" >&2
        exit 1
    }
}

have() { command -v "$1" >/dev/null 2>&1; }
python_has() { "$PYTHON" -c "$1" >/dev/null 2>&1; }

if ! have "$PYTHON"; then
    missing "python3 python3-venv python3-dev" "python3 python3-devel" "python"
elif ! python_has 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "set-up: $("$PYTHON" --version) is too old: pyuio needs Python 3.10 or later." \
         "Install one and name it: make PYTHON=python3.11 ..." >&2
    exit 1
else
    python_has 'import venv, ensurepip' || missing python3-venv python3 python
    python_has 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' ||
        missing python3-dev python3-devel python
fi
echo '#include <stdlib.h>' | cc -x c -fsyntax-only - 2>/dev/null || missing "gcc libc6-dev" "gcc glibc-devel" "gcc"
have qemu-system-x86_64 || missing qemu-system-x86 qemu-system-x86-core qemu-system-x86
# busybox is the guest's first program; it must be static, as the guest has no libraries then.
busybox=$(command -v busybox || true)
{ [ -n "$busybox" ] && ! ldd "$busybox" >/dev/null 2>&1; } || missing busybox-static busybox busybox
{ have depmod && have modprobe; } || missing kmod kmod kmod
{ [ -x /usr/lib/systemd/systemd-udevd ] || [ -x /lib/systemd/systemd-udevd ] || have udevd; } || missing udev systemd-udev systemd
python_has 'import ctypes; ctypes.CDLL("libudev.so.1")' || missing libudev1 systemd-libs systemd-libs
# make test builds a kernel module, and the kernel's build tools are linked with libelf.
python_has 'import ctypes; ctypes.CDLL("libelf.so.1")' || missing libelf1 elfutils-libelf libelf
# make test mounts disks and sets up networks in a guest.
{ have ip && have mkfs.ext4 && have dmsetup; } ||
    missing "iproute2 e2fsprogs dmsetup" "iproute e2fsprogs device-mapper" "iproute2 e2fsprogs device-mapper"
# make test-long has Ansible reach guests by ssh.
{ have ssh && have ssh-keygen; } || missing openssh-client openssh-clients openssh

if [ "${1:-}" = arm64 ]; then
    have qemu-system-aarch64 || missing qemu-system-arm qemu-system-aarch64-core qemu-system-aarch64
    have dtc || missing device-tree-compiler dtc dtc
    have aarch64-linux-gnu-gcc || missing gcc-aarch64-linux-gnu gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
fi

if [ "${1:-}" = emulation ]; then
    have qemu-s390x-static || have qemu-s390x || missing qemu-user-static qemu-user-static qemu-user-static
fi

if [ -n "$debian" ]; then
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        # sudo may ask for a password only if somebody can type it.
        if have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then as_root=sudo; else as_root=none; fi
    fi
    if ! have apt-get || [ "$as_root" = none ]; then
        {
            echo "set-up: some system packages are missing, and installing them needs apt-get and root (or sudo)."
            echo "Nothing was changed. Install them, then run make again:"
            if have apt-get || ! { have dnf || have pacman; }; then
                echo "  Debian, Ubuntu:  apt-get install --no-install-recommends$debian"
            fi
            have apt-get || echo "  Fedora:          dnf install$fedora"
            have apt-get || echo "  Arch:            pacman -S --needed$arch"
        } >&2
        exit 1
    fi
    echo "set-up: installing by apt:$debian" >&2
    export DEBIAN_FRONTEND=noninteractive
    case $debian in
    *python3* | *gcc*) install_by_apt ;;
    # pip needs none of these, and so does not wait for them.
    # If set-up fails meanwhile, it still ends after apt.
    *) install_by_apt & apt=$!; trap 'wait' EXIT ;;
    esac
fi

if [ -n "${1:-}" ]; then
    wait_for_apt
    exit 0
fi

echo "set-up: Python packages into .venv" >&2
# Update a virtual environment that was made here and finished; otherwise make a new one.
[ -e "${READY:-}" ] || "$PYTHON" -m venv --clear .venv
# Debian 12's pip takes twice the time. What builds pyuio is here then, and pip need not fetch it for that build alone.
pip_install --upgrade pip 'setuptools>=77' 'cffi>=1.15'
pip_install --no-build-isolation --editable '.[bench,vm,dev,docs]'
# pip would compile all, on one processor. These are large, and no guest imports them: a guest could not keep what it compiles.
large='babel|backrefs|fontTools|git|griffe|lexers|matplotlib|mpl_toolkits|mypyc?|PIL|pip|pymdownx|setuptools|tests'
# Not every file of a package is for this Python; such a file cannot be compiled.
.venv/bin/python -m compileall -q -j 0 -x "/($large)/" .venv/lib >/dev/null || true
wait_for_apt
echo "set-up: done" >&2
