"""What the tests of this folder share: the transport of their servers."""

import pytest


@pytest.fixture(scope="module", params=["wire", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    if request.param == "wire":
        pytest.importorskip("kerve_wire")
    return str(request.param)
