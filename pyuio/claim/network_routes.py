# SPDX-License-Identifier: MIT
"""The kernel's routes, of IPv4 and IPv6 and of all tables, by their outgoing interface.

pyuio asks over rtnetlink, because the files in ``/proc/net`` leave out the tables of policy routing and VRF. No light
library does that: pyroute2 takes ten times as long to import as all of pyuio, netifaces reports gateways only, and
psutil reports no routes. Not every container has ``ip route``. If pyuio missed a route, it would take a card that the
network needs.

Source: ``include/uapi/linux/rtnetlink.h`` and ``netlink.h``; Documentation/userspace-api/netlink/intro.rst.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x001, 0x300
_RTN_UNICAST = 1  # other types are for this machine itself, for broadcast and multicast, or refuse
_RTA_DST, _RTA_OIF, _RTA_MULTIPATH = 1, 4, 9
_RTA_TYPE = 0x3FFF  # without the two flags
_MESSAGE = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, bits of the destination, ..., type, flags
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_HOP = struct.Struct("=HBBi")  # rtnexthop: length, flags, hops, interface
_BUFFER = 1 << 16


class Route(NamedTuple):
    """One route to other machines.

    Attributes:
        destination: "default", or a network as in "192.168.1.0/24".
        interfaces: the indexes of its outgoing interfaces.
    """

    destination: str
    interfaces: tuple[int, ...]


def _parts(data: bytes, header: struct.Struct) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yield the header's fields and the content of each part; stop at a part whose length makes no sense."""
    while len(data) >= header.size:
        fields = header.unpack_from(data)
        if not header.size <= fields[0] <= len(data):
            return
        yield fields, data[header.size : fields[0]]
        data = data[fields[0] + 3 & ~3 :]


def parse_route(content: bytes) -> Route | None:
    """Return the route in the content of one RTM_NEWROUTE message, or None if it does not lead to other machines."""
    if len(content) < _ROUTE.size:
        return None
    family, bits, *_others, kind, _flags = _ROUTE.unpack_from(content)
    if kind != _RTN_UNICAST or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    address = bytes(4 if family == socket.AF_INET else 16)
    interfaces: list[int] = []
    for (_length, attribute), value in _parts(content[_ROUTE.size :], _ATTRIBUTE):
        if attribute & _RTA_TYPE == _RTA_DST and len(value) == len(address):
            address = value
        elif attribute & _RTA_TYPE == _RTA_OIF and len(value) == 4:
            interfaces.append(int.from_bytes(value, sys.byteorder))
        elif attribute & _RTA_TYPE == _RTA_MULTIPATH:
            interfaces += [hop[3] for hop, _gateway in _parts(value, _HOP)]
    destination = f"{ipaddress.ip_address(address)}/{bits}" if bits else "default"
    return Route(destination, tuple(interfaces))


def parse_messages(data: bytes) -> tuple[list[Route], bool]:
    """Return the routes in the data from one read of the socket, and whether it was the last read.

    Raises:
        OSError: the kernel answered with an error.
    """
    found: list[Route] = []
    for (_length, kind, *_others), content in _parts(data, _MESSAGE):
        if kind == _NLMSG_DONE:
            return found, True
        if kind == _NLMSG_ERROR:
            number = -int.from_bytes(content[:4], sys.byteorder, signed=True)
            number = number if number in errno.errorcode else errno.EIO
            raise OSError(number, f"asking the kernel for its routes: {os.strerror(number)}")
        if kind == _RTM_NEWROUTE and (route := parse_route(content)) is not None:
            found.append(route)
    return found, False


def routes() -> list[Route]:
    """Return every route to other machines in this network namespace.

    Raises:
        OSError: the kernel did not answer.
    """
    found: list[Route] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as link:
        link.settimeout(5)
        for family in (socket.AF_INET, socket.AF_INET6):
            length = _MESSAGE.size + _ROUTE.size
            header = _MESSAGE.pack(length, _RTM_GETROUTE, _NLM_F_REQUEST | _NLM_F_DUMP, family, 0)
            link.send(header + _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
            last = False
            while not last:
                more, last = parse_messages(link.recv(_BUFFER))
                found += more
    return found
