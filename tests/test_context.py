"""How far back a model looks, told of one whose attention ends where it is said to."""

import pytest

import aunet
import context
from aunet.config import AUNetConfig, StageConfig
from aunet.errors import AUNetError
from aunet.model.aunet import AUNet

WINDOW = 4
LONGEST = context.CONTEXTS[-1]


def test_bytes_beyond_the_window_of_the_only_layer_change_nothing() -> None:
    network = AUNet(AUNetConfig(stages=(StageConfig(dim=32, layers=1, head_dim=16, window=WINDOW),)))
    network.initialise(0)
    session = aunet.LanguageModel(network).session()
    pieces = context.evenly([bytes(range(256)) * 2], 9)
    found = {n: context.bits_given(session, pieces, n) for n in context.CONTEXTS}
    assert found[3] != pytest.approx(found[WINDOW], abs=1e-4)
    assert all(found[n] == pytest.approx(found[WINDOW], abs=1e-4) for n in context.CONTEXTS if n > WINDOW)


def test_places_lie_evenly_behind_the_longest_context_of_their_document() -> None:
    first, short, second = bytes([1] * LONGEST + [2, 3]), b"short", bytes([4] * LONGEST + [5, 6])
    pieces = context.evenly([first, short, second], 4)
    assert [piece[-1] for piece in pieces] == [2, 3, 5, 6]
    assert {len(piece) for piece in pieces} == {LONGEST + 1}
    assert [piece[-1] for piece in context.evenly([first, short, second], 2)] == [2, 5]


@pytest.mark.parametrize("places", [0, 3])
def test_places_that_the_text_does_not_have_are_refused(places: int) -> None:
    with pytest.raises(AUNetError, match=rf"^--places: {places} is not from 1 to 2"):
        context.evenly([bytes(LONGEST + 2)], places)
