# SPDX-License-Identifier: MIT
"""A program that starts QEMU so that the guest sees the host's files, but not the files of the host's kernel.

QEMU's 9p server follows mounts: from the exported root a guest would also reach the host's /proc, with the environment
of every process, and its /dev, /run and /sys. Root can avoid that: QEMU gets a mount namespace of its own, in which a
directory shows all mounts but those. An ordinary user cannot make such a namespace with the right owners of files in
it, and has only its own processes to hide.

    python -I -S host_files.py DIRECTORY QEMU [ARGUMENT...]

DIRECTORY is empty; the arguments name it as the root that is exported. Where the kernel refuses, as in many containers,
QEMU exports / instead, and a message says so. This file imports nothing but the standard library.
"""

import os
import sys

CLONE_NEWNS, MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = (
    0x20000,
    1,
    0x1000,
    0x4000,
    1 << 18,
    2,
)  # linux/mount.h
# Kinds of file systems that are the kernel's, wherever they are mounted.
KERNELS = (
    *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs"),
    *("fusectl", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs"),
)
HIDDEN = ("dev", "proc", "run", "sys")  # directories of the root, of which the guest has its own


def exported(directory: str) -> str:
    """Return the part of QEMU's option -fsdev that names a directory."""
    return f"path={directory.replace(',', ',,')},"


def mounts_below(directory: str) -> list[tuple[str, str]]:
    """Return place and kind of the file systems that are mounted below `directory`, the deepest first."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        for line in file:
            words, _, kinds = line.partition(b" - ")
            # A space stands as \040 there (proc(5)).
            place = os.fsdecode(words.split()[4].decode("unicode_escape").encode("latin-1"))
            if place.startswith(f"{directory}/"):
                found.append((place, kinds.split()[0].decode()))
    return sorted(found, key=lambda mount: mount[0].count("/"), reverse=True)


def show_without_the_kernels(directory: str) -> None:
    """Have `directory` show the host's files, in a mount namespace of this process. OSError: the kernel refused."""
    import ctypes  # here, because pyuio itself imports this file

    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> None:
        if result:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    checked(libc.unshare(CLONE_NEWNS))
    checked(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    checked(libc.mount(b"/", os.fsencode(directory), None, MS_BIND | MS_REC, None))
    for place, kind in mounts_below(directory):
        if kind in KERNELS:
            checked(libc.umount2(os.fsencode(place), MNT_DETACH))
    for name in HIDDEN:
        checked(libc.mount(b"none", os.fsencode(f"{directory}/{name}"), b"tmpfs", MS_RDONLY, b"size=4k"))


def main() -> None:
    """Become QEMU."""
    directory, *command = sys.argv[1:]
    try:
        show_without_the_kernels(directory)
    except OSError as error:
        print(f"the guest can reach the host's /proc: {error}", file=sys.stderr, flush=True)
        command = [word.replace(exported(directory), exported("/")) for word in command]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
