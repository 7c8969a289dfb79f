"""What tests of several folders share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def raw16() -> Path:
    """Real radiometric frames."""
    if "EDGEUNIP_DATA" not in os.environ:
        pytest.skip("EDGEUNIP_DATA is not set: no real thermal frames")
    folder = Path(os.environ["EDGEUNIP_DATA"]) / "raw16-thermal"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder
