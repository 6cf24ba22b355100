"""What reading a saved classifier may do: compute with its weights. More only by whoever loads it.

::

    with loading(Allowed(endpoints=("https://api.openai.com/v1=OPENAI_API_KEY",))) as granted:
        classifier = load(folder)       # granted: one line for each thing it was given

A manifest says what its classifier wants: code of its own, a model from the hub, an endpoint and
the environment variable that holds its key. None of this is a permission. While a saved classifier
is read, whatever wants one asks here, and without one it is refused. An experiment is its user's
own word and is not asked: this is about files alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from llmembed.errors import ConfigError, ModelError

KEYLESS = "none"
ENVIRONMENT = {
    "remote_code": "LLMEMBED_ALLOW_REMOTE_CODE",
    "hub": "LLMEMBED_ALLOW_HUB",
    "endpoints": "LLMEMBED_ALLOW_ENDPOINTS",
}
"""Permission -> the variable that gives it where nobody can hand an ``Allowed`` over (MLflow)."""

_OPTIONS = {
    "python": {
        "remote_code": "load(folder, Allowed(remote_code=True))",
        "hub": "load(folder, Allowed(hub=True))",
        "endpoints": 'load(folder, Allowed(endpoints=("{}",)))',
    },
    "command": {
        "remote_code": "--trust-remote-code",
        "hub": "--allow-hub",
        "endpoints": "--allow-endpoint {}",
    },
    "serve": {
        "remote_code": "allow.remote_code=true",
        "hub": "allow.hub=true",
        "endpoints": "allow.endpoints={}",
    },
    "environment": {
        "remote_code": f"{ENVIRONMENT['remote_code']}=1",
        "hub": f"{ENVIRONMENT['hub']}=1",
        "endpoints": f"{ENVIRONMENT['endpoints']}={{}}",
    },
}
"""Who loads -> permission -> how it is given there."""

# No user, password or query has a place in it, so an address that fits can be shown.
_ADDRESS = r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[\w.~%+:,/-]*)?"
_WORD = re.compile(rf"(?P<address>{_ADDRESS})(?:=(?P<key>none|[A-Z_][A-Z0-9_]{{0,63}}))?", re.ASCII)
_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """``address`` without a slash at its end; ``key``: the variable that holds its key, ``none``
    where it wants none, None where that was not said."""

    address: str
    key: str | None = None

    @classmethod
    def parse(cls, word: str) -> Endpoint:
        """``URL``, ``URL=VARIABLE`` or ``URL=none``. Raises ``ConfigError``."""
        found = _WORD.fullmatch(word)
        address = _normal(found["address"]) if found else None
        if found is None or address is None:  # not repeated: it may hold a password
            raise ConfigError(
                "an endpoint is allowed as https://HOST/v1, or https://HOST/v1=VARIABLE with the "
                "name of the variable that holds its key, or =none; it holds no user, password or "
                "query"
            )
        if found["key"] not in (None, KEYLESS) and in_clear(address):
            raise ConfigError(
                f"the key in {found['key']} would travel in clear to {address}: ask it by https, "
                "by a loopback address, or with =none"
            )
        return cls(address=address, key=found["key"])


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What whoever loads a classifier lets it do. ``remote_code``: a backbone may run Python of its
    own. ``hub``: models that this machine has not in its cache may be fetched from the hub.
    ``endpoints``: what ``Endpoint.parse`` reads, each an address that may be asked, with the only
    key it may get. ``by``: who loads, for what a refusal says. Raises ``ConfigError``."""

    remote_code: bool = False
    hub: bool = False
    endpoints: tuple[str, ...] = ()
    by: Literal["python", "command", "serve", "environment"] = "python"

    def __post_init__(self) -> None:
        words = (self.endpoints,) if isinstance(self.endpoints, str) else tuple(self.endpoints)
        object.__setattr__(self, "endpoints", words)
        addresses = [endpoint.address for endpoint in self._parsed()]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ConfigError(f"the endpoint {address} is allowed twice: once, with one key")

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Allowed:
        """By the variables of ``ENVIRONMENT``: 1 or 0, and addresses with spaces between."""
        flags = {}
        for name in ("remote_code", "hub"):
            said = environment.get(ENVIRONMENT[name], "").strip().lower()
            if said not in ("", "0", "1", "false", "true"):
                raise ConfigError(f"{ENVIRONMENT[name]}: expected 1 or 0")
            flags[name] = said in ("1", "true")
        words = tuple(environment.get(ENVIRONMENT["endpoints"], "").split())
        return cls(**flags, endpoints=words, by="environment")

    def _parsed(self) -> list[Endpoint]:
        return [Endpoint.parse(word) for word in self.endpoints]

    def option(self, permission: str, value: str = "") -> str:
        """How ``permission`` is given by whoever loads."""
        return _OPTIONS[self.by][permission].format(value)

    def endpoint(self, model: str, address: str, key: str | None) -> Endpoint:
        """The endpoint that may be asked where a manifest wants ``address`` with the key in the
        variable ``key``: the loader's words, not the manifest's. Raises ``ModelError``."""
        wanted = _normal(address) if _WORD.fullmatch(f"{address}=none") else None
        if wanted is None:
            raise ModelError(
                f"the classifier asks {shown(model)} at an address with a user, a password, a "
                "query or odd characters, which can't be allowed"
            )
        given = next((each for each in self._parsed() if each.address == wanted), None)
        if given is not None and (given.key is not None or key is None):
            return Endpoint(address=wanted, key=None if given.key == KEYLESS else given.key)
        known = key is not None and re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", key) is not None
        variable = f"the variable {key}" if known else "a variable with an odd name"
        named = KEYLESS
        if key is not None and not in_clear(wanted):
            # Only what is a key of an interface by its name is offered to be repeated.
            named = str(key) if known and str(key).endswith("_API_KEY") else "VARIABLE"
        word = wanted if key is None else f"{wanted}={named}"
        if given is None:
            missing = f"the classifier asks {shown(model)} at {wanted}"
            missing += f" with the key in {variable}" if key is not None else ""
        else:
            missing = f"the classifier wants the key in {variable} for {wanted}"
        option = self.option("endpoints", word)
        raise ModelError(f"{missing}, which was not allowed; if you want that, say {option}")


_STATE: ContextVar[tuple[Allowed, list[str]] | None] = ContextVar("llmembed_loading", default=None)


@contextmanager
def loading(allowed: Allowed | None = None) -> Iterator[list[str]]:
    """What is read inside comes from a saved classifier, and gets what ``allowed`` gives; without
    it, what was allowed around this, else nothing. Gives the list of what was granted, in words,
    which grows as it is granted."""
    around = _STATE.get()
    if allowed is None and around is not None:
        yield around[1]
        return
    granted: list[str] = []
    token = _STATE.set((allowed or Allowed(), granted))
    try:
        yield granted
    finally:
        _STATE.reset(token)


def is_loading() -> bool:
    """Whether what is built comes from a saved classifier."""
    return _STATE.get() is not None


def allowed_now() -> Allowed:
    """What a saved classifier that is read gets here: nothing outside of ``loading``."""
    state = _STATE.get()
    return Allowed() if state is None else state[0]


def grant(line: str) -> None:
    """Note for whoever loads what was granted."""
    state = _STATE.get()
    if state is not None and line not in state[1]:
        state[1].append(line)


def check_code(name: str, location: str) -> None:
    """Raise ``ModelError`` unless a model may run the Python that lies with it."""
    allowed = allowed_now()
    if not allowed.remote_code:
        raise ModelError(
            f"the classifier's model {shown(name)} runs Python code that lies in "
            f"{shown(location)}, which was not allowed; if you trust that code, say "
            f"{allowed.option('remote_code')}"
        )
    grant(f"runs the code of {shown(location)}")


def check_hub(location: str, revision: str | None) -> None:
    """Raise ``ModelError`` unless a model that is not on this machine may be fetched."""
    allowed = allowed_now()
    at = f" at {shown(revision)}" if revision else ""
    if not allowed.hub:
        raise ModelError(
            f"the classifier's model {shown(location)}{at} is not in this machine's cache, and to "
            f"fetch it from the hub was not allowed; if you want that, say {allowed.option('hub')}"
        )
    grant(f"fetches {shown(location)}{at} from the hub")


def in_clear(address: str) -> bool:
    """Whether what is sent to ``address`` can be read on its way."""
    place = urlsplit(address)
    host = place.hostname or ""
    if place.scheme == "https" or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def shown(text: object) -> str:
    """A manifest's word on one line of a terminal: printable, and not endless."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text))
    return plain if len(plain) <= _SHOWN else plain[:_SHOWN] + "…"


def _normal(address: str) -> str | None:
    """Host in small letters, no default port, no slash at the end; None for a port that is none."""
    place = urlsplit(address)
    try:
        port = place.port
    except ValueError:
        return None
    host = place.hostname or ""
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[place.scheme]
    at = "" if port in (None, default) else f":{port}"
    return f"{place.scheme}://{host}{at}{place.path.rstrip('/')}"
