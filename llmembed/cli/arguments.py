"""Every word of the command line: commands, options and their help."""

from __future__ import annotations

import argparse

EXAMPLES = """\
examples:
  llmembed demo
  llmembed compare --data r8
  llmembed compare --data reviews.csv --text-column body --label-column topic
  llmembed fit --data reviews.csv --label-column topic --method avg_b_r seeds=5
  llmembed predict --model models:/default@champion --data new.csv --output labels.csv
  llmembed serve default
"""

RECIPE_HELP = "a name from `llmembed recipes` or a YAML file"


def score(word: str) -> float | str:
    """A number, or the word ``chosen``."""
    return word if word == "chosen" else float(word)


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
    recipes.add_argument("--json", metavar="FILE", help="also write the list here")

    fit = commands.add_parser("fit", help="fit one method, evaluate, track and register it")
    fit.add_argument("--method", metavar="NAME", help="which of the experiment's methods")
    fit.add_argument("--save", metavar="FOLDER", help="also save the classifier here")
    _dry_run(fit)
    _experiment_options(fit, recipe="compare")

    compare = commands.add_parser(
        "compare", help="several methods on one data set: one leaderboard"
    )
    compare.add_argument(
        "--methods", metavar="A,B,…", help="only these of the experiment's methods"
    )
    _dry_run(compare)
    _experiment_options(compare, recipe="compare")

    tune = commands.add_parser(
        "tune", help="search fusions and heads, or how a model is fine-tuned; name a winner"
    )
    tune.add_argument("--name", help="the sweep's name, for --resume (default: data and time)")
    tune.add_argument("--resume", metavar="NAME", help="go on with a sweep that was stopped")
    tune.add_argument("--spaces", action="store_true", help="list the ready spaces and stop")
    _experiment_options(tune, recipe="paper-grid")

    embed = commands.add_parser("embed", help="fill the embedding store without fitting")
    embed.add_argument("--methods", metavar="A,B,…", help="only what these methods read")
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
    _form_options(predict)
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
        "--unknown-below",
        type=score,
        metavar="SCORE | chosen",
        help="answer `unknown`, and true in a column `abstained`, below this score, or below the "
        "one chosen on validation, which promises the wanted precision",
    )
    predict.add_argument(
        "--tracking-uri", metavar="ADDRESS", help="of MLflow; default: SQLite among the files"
    )
    predict.add_argument(
        "--max-bad-fraction",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="fail when more of the rows can't be used (default: 0.01)",
    )
    asking = predict.add_argument_group("a classifier that asks an endpoint")
    asking.add_argument("--budget-usd", type=float, metavar="USD", help="stop before this is spent")
    asking.add_argument("--budget-tokens", type=int, metavar="N", help="of prompts and answers")
    asking.add_argument(
        "--token-prices",
        type=float,
        nargs=2,
        metavar=("PROMPT", "ANSWER"),
        help="USD for 1000 tokens (default: 0.002 each)",
    )
    _permissions(predict)
    _runtime_options(predict)

    serve = commands.add_parser("serve", help="put registered classifiers online")
    serve.add_argument(
        "words",
        nargs="+",
        metavar="MODEL | KEY=VALUE",
        help="registered names (their champion), models:/NAME/VERSION or folders, and settings "
        "to change, such as ingress.max_replicas=4 challenger.mode=shadow",
    )
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument(
        "--tracking-uri", metavar="ADDRESS", help="of MLflow; default: SQLite among the files"
    )
    serve.add_argument(
        "--files", metavar="DIR", help="where runs and feedback are (default: llmembed-files)"
    )
    serve.add_argument(
        "--address", metavar="RAY", help="a running Ray cluster; default: start one here"
    )

    _permissions(serve)

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


def _permissions(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what a classifier may do besides answering by its weights")
    group.add_argument(
        "--allow-endpoint",
        action="append",
        default=[],
        metavar="URL[=VARIABLE]",
        help="ask the endpoint it was fitted with, with the key in this environment variable "
        "(=none: without a key); repeat it for several",
    )
    group.add_argument(
        "--allow-hub", action="store_true", help="fetch models that are not in the hub's cache here"
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="run the Python code of its backbone"
    )


def _dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="ask no language model anything; say what the prompts would take",
    )


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
        group.add_argument(
            "--feedback",
            metavar="NAME | FOLDER",
            help="also train on labels corrected at POST /feedback: a served model or a folder",
        )
        group.add_argument("--multi", action="store_true", help="several labels a text")
        _form_options(group)
    command.add_argument("--backbone", metavar="MODEL", help="preset, hub id or local folder")
    command.add_argument("--seeds", type=int, metavar="N", help="fits per method")
    _runtime_options(command)


def _form_options(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--delimiter",
        metavar="CHAR",
        help="between the columns of csv, such as ; or tab (default: told by the header)",
    )
    group.add_argument(
        "--encoding", metavar="NAME", help="of csv and JSON, such as cp1252 (default: UTF-8)"
    )


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
