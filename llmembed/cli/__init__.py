"""``llmembed …``: parse, call one function of pipelines, print.

Exit codes: 0 done, 1 something failed, 2 the request can't be met as stated, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmembed.cli.arguments import parser
from llmembed.errors import LlmembedError, UserError


def parse(top: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options and words in any order: argparse gives up on words that follow an option."""
    options, rest = top.parse_known_args(arguments)
    if rest and (not hasattr(options, "words") or any(word.startswith("-") for word in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.words = [*options.words, *rest]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    top = parser()
    options = parse(top, arguments)
    if options.version:
        from llmembed import __version__

        print(f"llmembed {__version__}")
        return 0
    if options.command is None:
        top.print_help()
        return 2
    _stop_on_terminate()
    _share_cores()
    try:
        return _run(options)
    except UserError as error:
        _say(options.command, str(error))
        return 2
    except LlmembedError as error:
        _say(options.command, str(error))
        return 1
    except KeyboardInterrupt:
        print(
            f"llmembed {options.command}: stopped; what was finished is kept, "
            "and the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        _say(options.command, reason)
        return 1


def _say(command: str, words: str) -> None:
    """A sentence on standard error; what a strange file put into it does nothing to a terminal."""
    plain = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in words)
    print(f"llmembed {command}: {plain}", file=sys.stderr)


def _share_cores() -> None:
    """Before torch is loaded: let its idle threads sleep. By default they spin, and beside other
    work on the same cores a fit then takes up to 18 times as long (measured, see lab-notes)."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def _stop_on_terminate() -> None:
    """`ray job stop` and `kill` end a run as Ctrl-C does: what was begun is closed properly."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _run(options: argparse.Namespace) -> int:
    if options.command == "recipes":
        from llmembed.pipelines.compare import show_recipes

        show_recipes(options.recipe, json_path=options.json)
    elif options.command == "doctor":
        from llmembed.pipelines.doctor import doctor

        sound = doctor(files=options.files, address=options.address, json_path=options.json)
        return 0 if sound else 1
    elif options.command == "report":
        from llmembed.pipelines.compare import report

        report(
            options.leaderboard,
            files=options.files,
            markdown=options.markdown,
            json_path=options.json,
        )
    elif options.command == "predict":
        from llmembed.permissions import Allowed
        from llmembed.pipelines.predict import predict

        predict(
            model=options.model,
            data=options.data,
            text_column=options.text_column,
            delimiter=options.delimiter,
            encoding=options.encoding,
            output=options.output,
            keep=options.keep,
            scores=options.scores,
            unknown_below=options.unknown_below,
            max_bad_fraction=options.max_bad_fraction,
            budget_usd=options.budget_usd,
            budget_tokens=options.budget_tokens,
            token_prices=options.token_prices and tuple(options.token_prices),
            tracking_uri=options.tracking_uri,
            files=options.files,
            address=options.address,
            local=options.local,
            json_path=options.json,
            allowed=Allowed(
                remote_code=options.trust_remote_code,
                hub=options.allow_hub,
                endpoints=tuple(options.allow_endpoint),
                by="command",
            ),
        )
    elif options.command == "tune":
        return _tune(options)
    elif options.command == "serve":
        _serve(options)
    else:
        return _on_experiment(options)
    return 0


def _on_experiment(options: argparse.Namespace) -> int:
    """``embed``, ``fit``, ``compare``, or with --dry-run what the latter two would ask."""
    experiment = _experiment(options)
    if options.command == "embed":
        from llmembed.pipelines.embed import embed

        embed(experiment, json_path=options.json)
        return 0
    if getattr(options, "dry_run", False):
        from llmembed.pipelines.dry_run import estimate

        method = getattr(options, "method", None)
        estimate(experiment, method=method, json_path=options.json)
        return 0
    from llmembed.pipelines.compare import compare, fit

    if options.command == "fit":
        done = fit(experiment, method=options.method, save=options.save, json_path=options.json)
    else:
        done = compare(experiment, json_path=options.json)
    return 0 if done.registered else 1


def _experiment(options: argparse.Namespace) -> Any:
    """The experiment that a recipe, the options and the KEY=VALUE words say together."""
    from llmembed.experiment import load_experiment

    recipe, changes, overrides = _said(options)
    names = getattr(options, "methods", None)
    return load_experiment(
        recipe,
        changes=changes,
        overrides=overrides,
        only=names.split(",") if names else None,
    )


def _tune(options: argparse.Namespace) -> int:
    """Start a sweep, go on with one, or list the ready spaces. 1 where no winner was found."""
    from tune import load_sweep, ready_spaces, resume, start

    space, changes, overrides = _said(options)
    if options.spaces:
        for name, path in ready_spaces().items():
            print(f"{name}  {path}")
        return 0
    if options.resume is not None:
        other = set(changes) - {"runtime.files", "runtime.address"}
        if other or overrides or options.words:
            raise UserError("--resume goes on as the sweep began: it takes no other settings")
        found = resume(
            options.resume, files=options.files, address=options.address, json_path=options.json
        )
    else:
        if "seeds" in changes:
            changes["search.final_seeds"] = changes.pop("seeds")
        sweep = load_sweep(space, changes=changes, overrides=overrides)
        found = start(sweep, name=options.name, json_path=options.json)
    return 1 if found.winner is None else 0


def _serve(options: argparse.Namespace) -> None:
    """Put models online until Ctrl-C."""
    import yaml

    from serve import load_settings, start

    given: dict[str, Any] = {}
    for word in options.words:
        if _is_setting(word):
            key, _, value = word.partition("=")
            try:
                # YAML takes these words for true and false; a mode may be called so.
                given[key] = value if value in ("on", "off") else yaml.safe_load(value)
            except (yaml.YAMLError, ValueError):
                raise UserError(f"{key}: {value[:80]!r} is no value that YAML reads") from None
    names = [word for word in options.words if not _is_setting(word)]
    if names:
        twice = given.keys() & {"model", "models"}
        if twice:
            raise UserError(f"name the models once: as words or by {min(twice)}=, not both")
        given["models"] = names
    for key, value in (
        ("files", options.files),
        ("tracking_uri", options.tracking_uri),
        ("allow.endpoints", options.allow_endpoint or None),
        ("allow.hub", options.allow_hub or None),
        ("allow.remote_code", options.trust_remote_code or None),
    ):
        if value is not None:
            given[key] = value
    start(load_settings(given), host=options.host, port=options.port, address=options.address)


def _said(options: argparse.Namespace) -> tuple[str, dict[str, Any], list[str]]:
    """What the options say: the recipe, dotted key -> value, and the KEY=VALUE words."""
    # An option that takes several sources also takes the KEY=VALUE words that follow it.
    sources = {name: getattr(options, name, None) or [] for name in ("data", "test_data")}
    words = [*options.words, *(w for found in sources.values() for w in found if _is_setting(w))]
    recipes = [word for word in options.words if _names_recipe(word)]
    if len(recipes) > 1:
        raise UserError(f"one recipe at a time, got {' and '.join(recipes)}")
    changes: dict[str, Any] = {}

    def put(key: str, value: Any) -> None:
        if value is not None and value is not False:
            changes[key] = value

    for key, found in zip(("data.source", "data.test"), sources.values(), strict=True):
        put(key, [word for word in found if not _is_setting(word)] or None)
    for key in ("text_column", "feedback", "multi", "delimiter", "encoding"):
        put(f"data.{key}", getattr(options, key, None))
    columns = getattr(options, "label_column", None)
    if columns:
        pairs = [column.split("=", 1) if "=" in column else (column, column) for column in columns]
        put("data.labels", dict(pairs))
    put("backbones.encoder.model", options.backbone)
    put("seeds", options.seeds)
    put("runtime.files", options.files)
    put("runtime.address", options.address)
    put("runtime.local", options.local)
    overrides = [word for word in words if not _names_recipe(word)]
    return recipes[0] if recipes else options.recipe, changes, overrides


def _names_recipe(word: str) -> bool:
    """A name or a file, or an address, whose options hold a ``=`` too."""
    return "=" not in word or re.match(r"[a-z][a-z0-9]*://", word) is not None


def _is_setting(word: str) -> bool:
    """``KEY=VALUE`` with a dotted key, and no file of that name."""
    return re.match(r"[a-z]\w*(\.[\w+-]+)*=", word) is not None and not Path(word).exists()


if __name__ == "__main__":
    sys.exit(main())
