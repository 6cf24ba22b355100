"""What a usage costs in USD."""

from __future__ import annotations

from dataclasses import dataclass

from llmembed.contract import Usage

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices in USD: energy by the kWh, an endpoint's tokens by the thousand.

    The defaults are the LLMEmbed paper's (0.065 USD/kWh, 0.002 USD per 1000 tokens).
    """

    usd_per_kwh: float = 0.065
    usd_per_1000_prompt_tokens: float = 0.002
    usd_per_1000_completion_tokens: float = 0.002

    def cost(self, usage: Usage) -> float:
        """USD for the energy of our devices and the tokens of endpoints."""
        return (
            usage.energy_joules / JOULES_PER_KWH * self.usd_per_kwh
            + usage.prompt_tokens / 1000 * self.usd_per_1000_prompt_tokens
            + usage.completion_tokens / 1000 * self.usd_per_1000_completion_tokens
        )


PRICES: dict[str, Prices] = {
    "llmembed-paper": Prices(),
    "energy-only": Prices(usd_per_1000_prompt_tokens=0.0, usd_per_1000_completion_tokens=0.0),
}
"""Price lists by name."""
