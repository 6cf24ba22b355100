"""Answers once given, kept on disk, so that a second run asks for nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmembed.contract import Usage
from llmembed.errors import StoreError
from llmembed.generation.request import Answer, Sampling
from llmembed.prompts import Prompt

VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    logprobs TEXT, usage TEXT NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, scores TEXT NOT NULL,
    usage TEXT NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
"""
_WAIT_SECONDS = 60.0
_KEYS_AT_ONCE = 500


def answer_key(model: Mapping[str, Any], prompt: Prompt, sampling: Sampling) -> str:
    """64 hexadecimal digits over everything an answer depends on. ``model``: what tells it from
    any other: its name and revision, or name and host."""
    return _digest({"model": model, "sampling": sampling.to_json(), "messages": _messages(prompt)})


def score_key(model: Mapping[str, Any], prompt: Prompt | str, candidates: Sequence[str]) -> str:
    """Like ``answer_key``, for the scores of ``candidates``. ``prompt``: the text itself where it
    is sent as text."""
    asked = {"text": prompt} if isinstance(prompt, str) else {"messages": _messages(prompt)}
    return _digest({"model": model, "candidates": [*candidates], **asked})


def _messages(prompt: Prompt) -> list[list[str]]:
    return [[message.role, message.content] for message in prompt]


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Given:
    """An answer and what it took."""

    answer: Answer
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The log-probabilities of one prompt's candidates and what they took."""

    scores: tuple[float, ...]
    usage: Usage


class ResponseCache:
    """A SQLite file of answers; several processes and threads may share it.

    Prompts are not in it, only their digests, and no key or header ever is. An answer is on disk
    when ``put`` returns. ``refresh``: what earlier runs kept is passed by and written over, so that
    everything is asked once more. It must lie on a local disk: SQLite's log needs shared memory.
    Raises ``StoreError`` where the file is no cache, was written by another version, or can't be
    written.
    """

    def __init__(self, path: str | Path, *, refresh: bool = False) -> None:
        self.path = Path(path)
        self._refresh = refresh
        self._renewed: set[str] = set()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"ResponseCache({str(self.path)!r})"

    def get(self, keys: Iterable[str]) -> dict[str, Given]:
        """What is kept under ``keys``, marked ``cached``."""
        columns = "text, finish, prompt_tokens, completion_tokens, logprobs, usage"
        return {
            key: Given(
                answer=Answer(
                    text=text,
                    finish=finish,
                    prompt_tokens=prompt_tokens,
                    completion_tokens=completion_tokens,
                    logprobs=logprobs_from_json(logprobs),
                    cached=True,
                ),
                usage=Usage.from_json(json.loads(usage)),
            )
            for key, text, finish, prompt_tokens, completion_tokens, logprobs, usage in (
                self._rows("answers", columns, keys)
            )
            if text.strip()  # earlier versions kept empty answers, too
        }

    def put(self, model: str, given: Mapping[str, Given]) -> None:
        """Keep the lasting answers by key; one already kept stays, unless it is to be refreshed."""
        self._insert(
            "answers",
            "trim(text, char(9, 10, 13, 32)) = ''",
            [
                (
                    key,
                    model,
                    one.answer.text,
                    one.answer.finish,
                    one.answer.prompt_tokens,
                    one.answer.completion_tokens,
                    logprobs_to_json(one.answer.logprobs),
                    json.dumps(one.usage.to_json()),
                    time.time(),
                )
                for key, one in given.items()
                if one.answer.lasting
            ],
        )

    def get_scores(self, keys: Iterable[str]) -> dict[str, Scored]:
        return {
            key: Scored(scores=tuple(json.loads(scores)), usage=Usage.from_json(json.loads(usage)))
            for key, scores, usage in self._rows("scores", "scores, usage", keys)
        }

    def put_scores(self, model: str, scored: Mapping[str, Scored]) -> None:
        self._insert(
            "scores",
            "0",
            [
                (
                    key,
                    model,
                    json.dumps(one.scores),
                    json.dumps(one.usage.to_json()),
                    time.time(),
                )
                for key, one in scored.items()
            ],
        )

    def count(self) -> int:
        """Answers kept."""
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _rows(self, table: str, columns: str, keys: Iterable[str]) -> list[tuple[Any, ...]]:
        wanted = [key for key in keys if not self._refresh or key in self._renewed]
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            some = wanted[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            with self._open() as connection:
                rows += connection.execute(
                    f"SELECT key, {columns} FROM {table} WHERE key IN ({marks})", some
                )
        return rows

    def _insert(self, table: str, worthless: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """``worthless``: the condition under which a row already kept is written over."""
        if not rows:
            return
        with self._open() as connection, connection:
            if self._refresh:
                old = [(row[0],) for row in rows if row[0] not in self._renewed]
                connection.executemany(f"DELETE FROM {table} WHERE key = ?", old)
                self._renewed.update(row[0] for row in rows)
            else:
                keys = [(row[0],) for row in rows]
                connection.executemany(f"DELETE FROM {table} WHERE key = ? AND {worthless}", keys)
            marks = ",".join("?" * len(rows[0]))
            connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                # A connection must not be carried into a forked process.
                if self._connection is None or self._process != os.getpid():
                    self._connection, self._process = self._connect(), os.getpid()
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(
                    f"the response cache {self.path} can't be used ({error}); move it away or "
                    "name another"
                ) from error

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, check_same_thread=False)
        # With a write-ahead log a killed process loses nothing that was committed.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found not in (0, VERSION):
            connection.close()
            raise StoreError(
                f"the response cache {self.path} is of version {found}, not {VERSION}: it was "
                "written by another version of llmembed"
            )
        if not found:
            connection.executescript(f"{_TABLES} PRAGMA user_version = {VERSION};")
        return connection


def logprobs_to_json(logprobs: Sequence[tuple[str, float]] | None) -> str | None:
    return None if logprobs is None else json.dumps([[t, v] for t, v in logprobs])


def logprobs_from_json(text: str | None) -> tuple[tuple[str, float], ...] | None:
    return None if text is None else tuple((t, float(v)) for t, v in json.loads(text))
