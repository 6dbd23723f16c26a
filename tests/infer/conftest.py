"""What the tests of reading share."""

import pytest

from aunet.infer.native.build import available


@pytest.fixture(params=["eager", "native"])
def kernels(request: pytest.FixtureRequest) -> str:
    """Which kernels read; the compiled ones where they can be had."""
    if request.param == "native" and not available():
        pytest.skip("the compiled kernels need a C++ compiler")
    return str(request.param)
