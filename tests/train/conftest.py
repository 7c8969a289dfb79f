"""What the tests of training share: the data set, and a backbone of 30 000 parameters under the name ``tiny``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training import MICRO, ForkServer, make_data, recipe

from edgeunip.train import fit
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.vit import SIZES


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def data(data_folder: Path) -> DataSet:
    return open_data(str(data_folder))


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setitem(SIZES, "tiny", MICRO)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def whole_run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``recipe()`` that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", MICRO)
        return fit.train(recipe(), data, tmp_path_factory.mktemp("runs") / "whole").path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()
