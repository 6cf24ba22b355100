"""What can go wrong, as one tree.

::

    LlmembedError               anything llmembed raises on purpose
    ├── UserError               the request can't be met as stated; the command line exits with 2
    │   ├── ConfigError         a setting is unknown, missing or of the wrong kind
    │   ├── DataError           a data source can't be read, or too many of its rows are bad
    │   ├── ModelError          a model can't be found, checked or loaded
    │   ├── UnsupportedError    a method, task and setting do not go together
    │   └── BudgetError         the next call could exceed a budget in USD or tokens
    ├── StoreError              a store does not match what is asked of it, or its disk is full
    ├── CollapseError           a fit answers one class only, whatever the text
    ├── NoAnswerError           a language model's endpoint gave no answer; asking again may help
    └── WorkerError             a worker failed for good; its own words are in the message

Each message is one sentence that says what was wrong, where, and what would be right.
"""


class LlmembedError(Exception):
    """Anything llmembed raises on purpose."""


class UserError(LlmembedError, ValueError):
    """The request can't be met as stated; the command line prints the message and exits with 2."""


class ConfigError(UserError):
    """A setting is unknown, missing or of the wrong kind."""


class DataError(UserError):
    """A data source can't be read, or too many of its rows are bad."""


class ModelError(UserError):
    """A model can't be found, checked or loaded."""


class UnsupportedError(UserError):
    """A method, task and setting do not go together."""


class BudgetError(UserError):
    """The next call could exceed a budget in USD or tokens; what was answered is kept."""


class StoreError(LlmembedError):
    """A store does not match what is asked of it, or the disk it lies on is full."""


class CollapseError(LlmembedError):
    """A fit answers one class only, whatever the text."""


class NoAnswerError(LlmembedError):
    """A language model's endpoint gave no answer; what was answered is kept, and asking again may
    help, after ``wait_seconds`` where it said so."""

    def __init__(self, message: str, *, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class WorkerError(LlmembedError):
    """A worker failed for good; its own words are in the message."""
