# SPDX-License-Identifier: MIT
"""The end mark in a stream is found however the stream is cut into pieces."""

from __future__ import annotations

import os
import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from pyuio.vm.streams import Outgoing

TOKEN = b"abcab"


@settings(deadline=None, derandomize=True)  # as in tests/unit/conftest.py
@given(st.binary(max_size=40) | st.text(alphabet="abc", max_size=40).map(str.encode), st.data())
def test_everything_before_the_token_passes(text: bytes, data: st.DataObject) -> None:
    text = text.replace(TOKEN, b"")
    whole = text + TOKEN
    at = whole.index(TOKEN)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    ours, theirs = socket.socketpair()
    source, sink = os.pipe()
    with ours, theirs:
        stream = Outgoing(ours, sink, TOKEN)
        for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            if begin == end or stream.done:
                continue
            theirs.send(whole[begin:end])
            stream.advance()
            while stream.waiting:
                stream.advance()
        assert stream.done
        os.close(sink)
        with os.fdopen(source, "rb") as file:
            assert file.read() == whole[:at]
