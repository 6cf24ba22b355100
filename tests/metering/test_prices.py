"""The bill of a usage, against hand-computed figures."""

from __future__ import annotations

import pytest

from llmembed.contract import Usage
from llmembed.metering import PRICES, Prices


def test_energy_and_tokens_are_billed():
    usage = Usage(
        measured_joules={"gpu:0": 3.0e6},
        estimated_joules={"cpu": 0.6e6},
        tokens=10**9,
        prompt_tokens=3000,
        completion_tokens=500,
    )
    # 1 kWh, 3.5 thousand tokens; tokens of our own models cost their energy alone
    assert Prices().cost(usage) == pytest.approx(0.065 + 3.5 * 0.002)
    dear = Prices(usd_per_kwh=0.3, usd_per_1000_prompt_tokens=1, usd_per_1000_completion_tokens=10)
    assert dear.cost(usage) == pytest.approx(0.3 + 3 + 5)
    assert PRICES["energy-only"].cost(usage) == pytest.approx(0.065)


def test_paper_figure():
    """LLMEmbed's CARP row on SST-2: 57.44 USD of tokens are 28.72 million tokens."""
    assert Prices().cost(Usage(prompt_tokens=28_720_000)) == pytest.approx(57.44)
