"""What an endpoint's address and the name of its key may be, and the key itself."""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, urlsplit

from llmembed.errors import ConfigError


def checked_address(base_url: str) -> SplitResult:
    """The parts of ``base_url``. Raises ``ConfigError`` for one that names no host or holds more
    than an address."""
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError("base_url must start with http:// or https:// and name a host")
    if address.username or address.password or address.query:
        raise ConfigError("base_url must hold no name, password or query: use api_key_env")
    return address


def check_key_variable(name: str | None) -> None:
    """Raise ``ConfigError`` for what is no name of an environment variable."""
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        # Not repeated: it may be the key.
        raise ConfigError(
            "api_key_env is the name of an environment variable in capitals, such as "
            "OPENAI_API_KEY, never the key itself"
        )


def key_in(variable: str | None, endpoint: str) -> str | None:
    """The key, None where ``endpoint`` wants none. Raises ``ConfigError`` where it is not set."""
    if variable is None:
        return None
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise ConfigError(
            f"{endpoint} needs a key, but the environment variable {variable} is not set; where "
            "the endpoint asks for none, set api_key_env to null"
        )
    return secret
