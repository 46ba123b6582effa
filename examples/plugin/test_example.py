"""What every plugin can test of its nets: ``pytest`` in this folder, once it is installed."""

from __future__ import annotations

import pytest

from n2n_lightning.plugins import check_net


@pytest.mark.parametrize("model", ["my_net", "my_net_wide"])
def test_the_net_takes_any_size_and_number_of_channels(model: str) -> None:
    check_net(model)
