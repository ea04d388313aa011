# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.claim import binding_record
from pyuio.claim.binding_record import BindingRecord, check_driver_name, parse
from pyuio.errors import PermissionDeniedError

RECORD = BindingRecord("0000:00:04.0", "1234:11e8", "uio_pci_generic", "serial", "", "a-boot")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "run/bindings"
    monkeypatch.setattr(binding_record, "DIRECTORY", found)
    monkeypatch.setattr(binding_record, "ids_of", lambda address: RECORD.ids)
    monkeypatch.setattr(binding_record, "boot_id", lambda: RECORD.boot_id)
    return found


def test_what_is_saved_is_loaded_and_forgotten(directory: Path) -> None:
    assert binding_record.load(RECORD.address) is None
    for record in (RECORD, RECORD._replace(previous=None, previous_override="vfio-pci")):
        binding_record.save(record)
        assert binding_record.load(RECORD.address) == record
    assert [entry.name for entry in directory.iterdir()] == ["0000:00:04.0.json"]
    binding_record.forget(RECORD.address)
    binding_record.forget(RECORD.address)
    assert binding_record.load(RECORD.address) is None


@pytest.mark.parametrize("field", ["address", "ids", "boot_id"])
def test_a_record_of_something_else_is_not_believed(directory: Path, field: str) -> None:
    binding_record.save(RECORD)
    path = directory / f"{RECORD.address}.json"
    path.write_text(json.dumps({**RECORD._asdict(), field: "ffff:ffff"}))
    assert binding_record.load(RECORD.address) is None


def test_what_others_could_have_written_is_not_believed(directory: Path, tmp_path: Path) -> None:
    binding_record.save(RECORD)
    path = directory / f"{RECORD.address}.json"
    for target, mode in ((path, 0o666), (directory, 0o777)):
        before = target.stat().st_mode
        target.chmod(mode)
        assert binding_record.load(RECORD.address) is None
        target.chmod(before)
    assert binding_record.load(RECORD.address) == RECORD
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert binding_record.load(RECORD.address) is None


def test_nothing_is_saved_where_others_may_write(directory: Path) -> None:
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    with pytest.raises(PermissionDeniedError, match="users other than root can write"):
        binding_record.save(RECORD)
    directory.rmdir()
    directory.symlink_to("/tmp")
    with pytest.raises(PermissionDeniedError, match="is not a directory"):
        binding_record.save(RECORD)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["serial", "..", "1234:11e8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_a_record_or_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@given(st.sampled_from(BindingRecord._fields), json_values)
def test_a_record_with_anything_in_it(name: str, value: Any) -> None:
    try:
        record = parse(json.dumps({**RECORD._asdict(), name: value}))
    except ValueError:
        return
    for driver in (record.driver, record.previous, record.previous_override):
        assert not driver or (driver not in (".", "..") and "/" not in driver and "\n" not in driver)


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "a/b", "a\nb", " a", "a ", "a\0b", "x" * 65])
def test_what_is_no_driver(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a kernel driver's name"):
        check_driver_name(name)


@pytest.mark.parametrize("name", ["uio_pci_generic", "vfio-pci", "ehci-pci", "a", "Intel(R) thing", "x" * 64])
def test_drivers(name: str) -> None:
    check_driver_name(name)
