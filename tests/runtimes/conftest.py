import pytest
from tiny_runtime import save_tiny, tiny_model

from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A real bundle; nobody writes into it."""
    return save_tiny(tmp_path_factory.mktemp("bundle") / "tiny.bundle")


@pytest.fixture(scope="session")
def runtime():
    runtime = OpenVinoRuntime(tiny_model())
    yield runtime
    runtime.close()
