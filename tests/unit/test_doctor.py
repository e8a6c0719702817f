"""What `eshop doctor` finds of libraries."""

import pytest
from aiokafka import codec

from eshop.cli import doctor


def test_doctor_names_the_codecs_and_which_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._codecs() == doctor.Finding("codecs", "gzip, snappy, lz4, zstd")
    monkeypatch.setattr(codec, "cramjam", None)
    assert doctor._codecs() == doctor.Finding("codecs", "gzip", "install snappy, lz4, zstd: make up")
