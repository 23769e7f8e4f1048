"""The tests hold functions to the shapes in their signatures."""

import pytest
import torch

from worldmodels import distributions


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(Exception, match="twohot_mean"):
        distributions.twohot_mean(torch.zeros(3, 255), torch.zeros(254))
