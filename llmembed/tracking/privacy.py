"""Keeps passwords and tokens out of what is recorded."""

from __future__ import annotations

import re
from itertools import pairwise

HIDDEN = "***"

_USERINFO = re.compile(r"(?<=://)[^/\s'\"?#]+@")
_QUERY_SECRET = re.compile(
    r"([?&;](?:[^=&\s]*(?:token|secret|passw|signature|credential|api[-_]?key|access[-_]?key)"
    r"[^=&\s]*|sig|key)=)[^&\s#'\"]+",
    re.IGNORECASE,
)
_AUTHORISATION = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
# Published shapes of keys: Hugging Face, OpenAI and alike, AWS access key id, GitHub.
_KEY_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}"
)
_SECRET_WORDS = frozenset({"password", "passwd", "secret", "credential", "credentials", "apikey"})
_SECRET_PAIRS = frozenset({("api", "key"), ("access", "key"), ("private", "key")})
# Words that make "... token" an ordinary term of this field rather than a key.
_TOKEN_TERMS = frozenset({"pad", "eos", "bos", "cls", "sep", "unk", "mask", "last", "per", "first"})


def masked(text: str) -> str:
    """``text`` with the secrets of addresses, headers and well-known keys replaced by ``***``."""
    text = _USERINFO.sub(f"{HIDDEN}@", text)
    text = _QUERY_SECRET.sub(rf"\g<1>{HIDDEN}", text)
    text = _AUTHORISATION.sub(rf"\g<1> {HIDDEN}", text)
    return _KEY_SHAPES.sub(HIDDEN, text)


def names_a_secret(key: str) -> bool:
    """Whether a setting called ``key`` holds a secret (``api_key``, ``hub.token``); token counts
    and special tokens (``max_tokens``, ``pad_token``) do not."""
    words = [word for word in re.split(r"[^a-z0-9]+", key.lower()) if word]
    if _SECRET_WORDS.intersection(words) or _SECRET_PAIRS.intersection(pairwise(words)):
        return True
    return words[-1:] == ["token"] and not _TOKEN_TERMS.intersection(words[-2:-1])
