"""The paper's laws, at the rows of its tables."""

import pytest

from aunet.paper_laws import LAWS


def test_the_laws_are_the_papers() -> None:
    assert LAWS["byte"].batch(1.1e19) == pytest.approx(8.7e5, rel=0.03)
    assert LAWS["byte"].batch(1.1e22) == pytest.approx(7.9e6, rel=0.03)
    assert LAWS["byte"].lr(1.1e19) == pytest.approx(2.923e-3, rel=0.01)
    assert LAWS["byte"].lr(1.1e22) == pytest.approx(8.72e-4, rel=0.01)
    assert LAWS["token"].batch(1e20) == pytest.approx(29.9 * 1e20**0.231)
    assert LAWS["token"].lr(1e20) == pytest.approx(19.3 * 1e20**-0.177)


@pytest.mark.parametrize("unit", ["byte", "token"])
def test_a_batch_on_which_the_compute_depends(unit: str) -> None:
    law = LAWS[unit].batch
    batch = law.solved(3e13)
    assert law(batch * 3e13) == pytest.approx(batch)
