"""``llmembed …``: parse, call one function of pipelines, print.

Exit codes: 0 done, 1 something failed, 2 the request can't be met as stated, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmembed.errors import LlmembedError, UserError

EXAMPLES = """\
examples:
  llmembed demo
  llmembed compare --data r8
  llmembed compare --data reviews.csv --text-column body --label-column topic
  llmembed fit --data reviews.csv --label-column topic --method avg_b_r seeds=5
  llmembed predict --model models:/default@champion --data new.csv --output labels.csv
"""

RECIPE_HELP = "a name from `llmembed recipes` or a YAML file"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="llmembed",
        description="From labelled text to the best deployable classifier for a budget.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and stop")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    demo = commands.add_parser("demo", help="compare methods on text that needs no download")
    _experiment_options(demo, recipe="demo", data=False)

    recipes = commands.add_parser("recipes", help="list the ready experiments, or show one")
    recipes.add_argument("recipe", nargs="?", metavar="NAME", help="show this one's YAML")

    fit = commands.add_parser("fit", help="fit one method, evaluate, track and register it")
    fit.add_argument("--method", metavar="NAME", help="which of the experiment's methods")
    fit.add_argument("--save", metavar="FOLDER", help="also save the classifier here")
    _experiment_options(fit, recipe="compare")

    compare = commands.add_parser(
        "compare", help="several methods on one data set: one leaderboard"
    )
    compare.add_argument(
        "--methods", metavar="A,B,…", help="only these of the experiment's methods"
    )
    _experiment_options(compare, recipe="compare")

    tune = commands.add_parser(
        "tune", help="search fusions, views and heads; refit the best, name a winner"
    )
    tune.add_argument("--name", help="the sweep's name, for --resume (default: data and time)")
    tune.add_argument("--resume", metavar="NAME", help="go on with a sweep that was stopped")
    tune.add_argument("--spaces", action="store_true", help="list the ready spaces and stop")
    _experiment_options(tune, recipe="paper-grid")

    embed = commands.add_parser("embed", help="fill the embedding store without fitting")
    _experiment_options(embed, recipe="compare")

    predict = commands.add_parser("predict", help="label files of any size, resumable")
    predict.add_argument(
        "--model",
        required=True,
        help="a saved classifier's folder, models:/NAME@champion, or a registered name alone",
    )
    predict.add_argument(
        "--data", required=True, nargs="+", metavar="FILES", help="file, folder, glob or s3://"
    )
    predict.add_argument("--text-column", default="text", metavar="COLUMN")
    predict.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="a .csv, .jsonl or .parquet file, or a folder of parts; also s3://",
    )
    predict.add_argument(
        "--keep", nargs="+", default=[], metavar="COLUMN", help="columns of the data to hand on"
    )
    predict.add_argument("--scores", action="store_true", help="write every class's score as well")
    predict.add_argument(
        "--unknown-below", type=float, metavar="SCORE", help="answer `unknown` below this score"
    )
    predict.add_argument(
        "--max-bad-fraction",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="fail when more of the rows can't be used (default: 0.01)",
    )
    _runtime_options(predict)

    report = commands.add_parser("report", help="print a stored leaderboard again")
    report.add_argument(
        "leaderboard", nargs="?", metavar="FILE", help="default: the newest one stored"
    )
    report.add_argument("--markdown", action="store_true", help="as a Markdown table")
    _runtime_options(report, address=False)

    doctor = commands.add_parser(
        "doctor", help="check this machine: packages, devices, Ray, energy"
    )
    _runtime_options(doctor)
    return top


def _experiment_options(
    command: argparse.ArgumentParser, *, recipe: str, data: bool = True
) -> None:
    command.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE | KEY=VALUE",
        help=f"{RECIPE_HELP} (default: {recipe}), and settings to change, such as data.limit=500",
    )
    command.set_defaults(recipe=recipe)
    if data:
        group = command.add_argument_group("data")
        group.add_argument(
            "--data",
            nargs="+",
            metavar="SOURCE",
            help="a benchmark (r8, r52, 20ng, …), files, s3:// or hub id",
        )
        group.add_argument(
            "--test-data", nargs="+", metavar="SOURCE", help="held-out files; default: split off"
        )
        group.add_argument("--text-column", metavar="COLUMN")
        group.add_argument(
            "--label-column",
            action="append",
            metavar="[TASK=]COLUMN",
            help="repeat it for several tasks",
        )
        group.add_argument("--multi", action="store_true", help="several labels a text")
    command.add_argument("--backbone", metavar="MODEL", help="preset, hub id or local folder")
    command.add_argument("--seeds", type=int, metavar="N", help="fits per method")
    _runtime_options(command)


def _runtime_options(command: argparse.ArgumentParser, *, address: bool = True) -> None:
    group = command.add_argument_group("where")
    group.add_argument(
        "--files", metavar="DIR", help="stores, runs and results (default: llmembed-files)"
    )
    if address:
        group.add_argument(
            "--address", metavar="RAY", help="a running Ray cluster; default: start one here"
        )
        group.add_argument("--local", action="store_true", help="in this process, without Ray")
    group.add_argument("--json", metavar="FILE", help="also write the printed figures here")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    top = parser()
    options = top.parse_args(arguments)
    if options.version:
        from llmembed import __version__

        print(f"llmembed {__version__}")
        return 0
    if options.command is None:
        top.print_help()
        return 2
    try:
        return _run(options)
    except UserError as error:
        print(f"llmembed {options.command}: {error}", file=sys.stderr)
        return 2
    except LlmembedError as error:
        print(f"llmembed {options.command}: {error}", file=sys.stderr)
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


def _run(options: argparse.Namespace) -> int:
    from llmembed import pipelines

    if options.command == "recipes":
        pipelines.show_recipes(options.recipe)
    elif options.command == "doctor":
        return (
            0
            if pipelines.doctor(
                files=options.files, address=options.address, json_path=options.json
            )
            else 1
        )
    elif options.command == "report":
        pipelines.report(
            options.leaderboard,
            files=options.files,
            markdown=options.markdown,
            json_path=options.json,
        )
    elif options.command == "predict":
        pipelines.predict(
            model=options.model,
            data=options.data,
            text_column=options.text_column,
            output=options.output,
            keep=options.keep,
            scores=options.scores,
            unknown_below=options.unknown_below,
            max_bad_fraction=options.max_bad_fraction,
            files=options.files,
            address=options.address,
            local=options.local,
            json_path=options.json,
        )
    elif options.command == "tune":
        _tune(options)
    else:
        experiment = _experiment(options)
        if options.command == "embed":
            pipelines.embed(experiment, json_path=options.json)
        elif options.command == "fit":
            pipelines.fit(
                experiment, method=options.method, save=options.save, json_path=options.json
            )
        else:
            pipelines.compare(experiment, json_path=options.json)
    return 0


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


def _tune(options: argparse.Namespace) -> None:
    """Start a sweep, go on with one, or list the ready spaces."""
    from tune import load_sweep, ready_spaces, resume, start

    space, changes, overrides = _said(options)
    if options.spaces:
        for name, path in ready_spaces().items():
            print(f"{name}  {path}")
    elif options.resume is not None:
        other = set(changes) - {"runtime.files", "runtime.address"}
        if other or overrides or options.words:
            raise UserError("--resume goes on as the sweep began: it takes no other settings")
        resume(options.resume, files=options.files, address=options.address, json_path=options.json)
    else:
        if "seeds" in changes:
            changes["search.final_seeds"] = changes.pop("seeds")
        sweep = load_sweep(space, changes=changes, overrides=overrides)
        start(sweep, name=options.name, json_path=options.json)


def _said(options: argparse.Namespace) -> tuple[str, dict[str, Any], list[str]]:
    """What the options say: the recipe, dotted key -> value, and the KEY=VALUE words."""
    # An option that takes several sources also takes the KEY=VALUE words that follow it.
    sources = {name: getattr(options, name, None) or [] for name in ("data", "test_data")}
    words = [*options.words, *(w for found in sources.values() for w in found if _is_setting(w))]
    recipes = [word for word in options.words if "=" not in word]
    if len(recipes) > 1:
        raise UserError(f"one recipe at a time, got {' and '.join(recipes)}")
    changes: dict[str, Any] = {}

    def put(key: str, value: Any) -> None:
        if value is not None and value is not False:
            changes[key] = value

    for key, found in zip(("data.source", "data.test"), sources.values(), strict=True):
        put(key, [word for word in found if not _is_setting(word)] or None)
    put("data.text_column", getattr(options, "text_column", None))
    put("data.multi", getattr(options, "multi", None))
    columns = getattr(options, "label_column", None)
    if columns:
        pairs = [column.split("=", 1) if "=" in column else (column, column) for column in columns]
        put("data.labels", dict(pairs))
    put("backbones.encoder.model", options.backbone)
    put("seeds", options.seeds)
    put("runtime.files", options.files)
    put("runtime.address", options.address)
    put("runtime.local", options.local)
    overrides = [word for word in words if "=" in word]
    return recipes[0] if recipes else options.recipe, changes, overrides


def _is_setting(word: str) -> bool:
    """``KEY=VALUE`` with a dotted key, and no file of that name."""
    return re.match(r"[a-z]\w*(\.[\w+-]+)*=", word) is not None and not Path(word).exists()


if __name__ == "__main__":
    sys.exit(main())
