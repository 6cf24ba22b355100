"""Loading is not running: manifests edited by hand, read with and without what they want."""

from __future__ import annotations

import contextlib
import csv
import json
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmembed
from llmembed.backbones import View, parse_reads
from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, Silent, Task
from llmembed.errors import ConfigError, LlmembedError, ModelError
from llmembed.generation.building import build_generator
from llmembed.methods import load
from llmembed.methods.asked import InvalidAnswers
from llmembed.methods.finetuned.separate import SeparateClassifier
from llmembed.methods.frozen.probe import Probe
from llmembed.methods.prompt_classifier import PromptClassifier
from llmembed.methods.prompted.carp import Carp
from llmembed.methods.prompted.prompt import Prompting
from llmembed.permissions import Allowed, loading

sys.path.append(str(Path(__file__).parent.parent / "generation"))
from openai_server import OpenAIServer

TOPIC = Task(name="topic", classes=("grain", "oil"))
TEXTS = ["the oil price rose", "grain exports fell", "oil supply", "grain and banks"]
SECRET = "AWS_SECRET_ACCESS_KEY"


def rows(count: int) -> Examples:
    texts = [f"{('grain', 'oil')[i % 2]} {TEXTS[i % 4]} {i}" for i in range(count)]
    return Examples(texts=texts, labels={"topic": np.arange(count) % 2})


@pytest.fixture(autouse=True)
def _code_is_copied_here(tmp_path, monkeypatch):
    """Where transformers puts a model's code before it runs it, here and in other processes."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    with LocalRuntime(tmp_path_factory.mktemp("files")) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def view(tiny_spec):
    return View(backbone=tiny_spec, reads=parse_reads("mean:1"))


@pytest.fixture(scope="module")
def probe(view, runtime):
    return Probe(view=view).fit([TOPIC], rows(12), rows(6), runtime, Silent())


@pytest.fixture
def server():
    with OpenAIServer(lambda messages: "oil") as server:
        yield server


@pytest.fixture
def prompt(server, runtime, tmp_path) -> Callable[..., Path]:
    """Saves a prompt fitted at the server's address, of which ``changes`` are edited by hand."""

    def prompt(**changes: Any) -> Path:
        told = {"kind": "endpoint", "model": "m", "base_url": server.url, "api_key_env": None}
        method = Prompting(generator=build_generator(told), k=0, max_answer_tokens=4)
        folder = tmp_path / f"prompt-{len([*tmp_path.iterdir()])}"
        method.fit([TOPIC], rows(4), rows(2), runtime, Silent()).save(folder)
        edit(folder / "classifier.json", lambda it: it["settings"]["generator"].update(changes))
        return folder

    return prompt


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def with_code(tiny_bert: Path, folder: Path, ran: Path) -> Path:
    """The tiny BERT as a model that runs code of its own, which leaves a mark when it does."""
    shutil.copytree(tiny_bert, folder)
    edit(folder / "config.json", lambda it: it.update(auto_map={"AutoModel": "own.Own"}))
    (folder / "own.py").write_text(
        "from pathlib import Path\nfrom transformers import BertModel\n"
        f"def mark():\n    Path({str(ran)!r}).write_text('ran')\n"
        "mark()  # when it is first imported\n"
        "class Own(BertModel):\n"
        "    def __init__(self, config):\n        super().__init__(config)\n        mark()\n"
    )
    return folder


def wants_code(view: dict[str, Any], model: Path) -> None:
    """What an attacker writes over a view of the manifest: all digests are those of ``model``."""
    from llmembed.backbones import resolve

    spec = resolve(str(model), reads="mean:1", max_tokens=24, dtype="float32",
                   trust_remote_code=True)  # fmt: skip
    view["backbone"] = spec.to_json()


@pytest.fixture
def coded(probe, tiny_bert, tmp_path) -> tuple[Path, Path]:
    """The folder of a probe whose backbone runs code, and the mark that the code leaves."""
    ran = tmp_path / "ran"
    model = with_code(tiny_bert, tmp_path / "own-model", ran)
    probe.save(tmp_path / "probe")
    edit(
        tmp_path / "probe" / "classifier.json",
        lambda it: [wants_code(view, model) for view in it["settings"]["views"].values()],
    )
    ran.unlink(missing_ok=True)  # resolving ran it, as an experiment's own word may
    return tmp_path / "probe", ran


def test_code_of_a_backbone_runs_only_by_the_loaders_word(coded):
    folder, ran = coded
    for act in (load, llmembed.load):
        with pytest.raises(ModelError, match=r"runs Python code.*own-model.*remote_code=True"):
            act(folder)
    assert not ran.exists()
    assert load(folder, Allowed(remote_code=True)).predict(TEXTS)["topic"].labels.shape == (4,)
    assert ran.exists()


def test_what_is_inside_another_classifier_gets_no_more(coded, probe, tmp_path):
    folder, ran = coded
    SeparateClassifier(parts=(probe, probe)).save(tmp_path / "both")
    shutil.copy(folder / "classifier.json", tmp_path / "both" / "part-1" / "classifier.json")
    with pytest.raises(ModelError, match="runs Python code"):
        load(tmp_path / "both")
    assert not ran.exists()
    with loading(Allowed(remote_code=True)) as granted:
        assert len(load(tmp_path / "both").parts) == 2
    assert granted == [f"runs the code of {tmp_path / 'own-model'}"]


@pytest.mark.parametrize("place", ["demonstrations", "invalid"])
def test_a_prompts_own_views_are_asked_about_too(place, view, server, runtime, tiny_bert, tmp_path):
    told = {"kind": "endpoint", "model": "m", "base_url": server.url, "api_key_env": None}
    invalid = InvalidAnswers(policy="nearest", view=view)
    method = Prompting(generator=build_generator(told), k=2, view=view, invalid=invalid)
    folder = tmp_path / "prompt"
    method.fit([TOPIC], rows(6), rows(2), runtime, Silent()).save(folder)
    allowed = Allowed(endpoints=(server.url,))
    load(folder, allowed)
    model = with_code(tiny_bert, tmp_path / "own-model", tmp_path / "ran")
    if place == "invalid":
        edit(folder / "classifier.json",
             lambda it: wants_code(it["settings"]["invalid"]["view"], model))  # fmt: skip
    else:
        edit(folder / "demonstrations.json", lambda it: wants_code(it["view"], model))
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="runs Python code"):
        load(folder, allowed)
    assert not (tmp_path / "ran").exists()


def probe_that_says(probe: Any, folder: Path, **changes: Any) -> Path:
    probe.save(folder)
    edit(
        folder / "classifier.json",
        lambda it: [v["backbone"].update(changes) for v in it["settings"]["views"].values()],
    )
    return folder


def test_a_kernel_of_the_hub_is_no_attention(probe, tiny_bert, tmp_path):
    with pytest.raises(ConfigError, match="unknown attention 'someone/kernel'"):
        load(probe_that_says(probe, tmp_path / "probe", attention="someone/kernel"))
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    edit(model / "config.json", lambda it: it.update(attn_implementation="someone/kernel"))
    loaded = load(probe_that_says(probe, tmp_path / "two", location=str(model), config_digest=None))
    with pytest.raises(ModelError, match="takes its attention from the hub"):
        loaded.predict(TEXTS)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_model_of_the_hub_is_fetched_only_by_the_loaders_word(
    probe, tmp_path, monkeypatch, tiny_bert
):
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    named = {"location": "someone/model", "revision": COMMIT, "weights_sha256": None}
    folder = probe_that_says(probe, tmp_path / "probe", **named)
    with pytest.raises(ModelError, match=rf"someone/model at {COMMIT} is not in.*hub=True"):
        load(folder)
    with loading(Allowed(hub=True)) as granted:
        load(folder)
    assert granted == [f"fetches someone/model at {COMMIT} from the hub"]
    # Fetched before: no host is needed for it.
    shutil.copytree(tiny_bert, cache / "models--someone--model" / "snapshots" / COMMIT)
    load(folder)
    # A preset is known here, if by its commit.
    preset = {**named, "location": "google-bert/bert-large-uncased"}
    load(probe_that_says(probe, tmp_path / "preset", **preset))
    with pytest.raises(ModelError, match="at main is not in"):
        load(probe_that_says(probe, tmp_path / "any", **{**preset, "revision": "main"}))
    with pytest.raises(ModelError, match="neither a folder here nor a hub id"):
        url = {**named, "location": "http://127.0.0.1:9/model"}
        load(probe_that_says(probe, tmp_path / "url", **url), Allowed(hub=True))


def test_of_weights_that_are_gone_nothing_is_fetched(probe, tmp_path, monkeypatch):
    folder = probe_that_says(probe, tmp_path / "probe", location="someone/model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no folder someone/model"):
        load(folder).predict(TEXTS)


def test_a_language_model_gets_neither_address_nor_key_from_the_manifest(
    server, prompt, monkeypatch
):
    monkeypatch.setenv(SECRET, "a-secret-of-mine")
    monkeypatch.setenv("GATE_API_KEY", "the-key")
    folder = prompt(api_key_env=SECRET)
    with pytest.raises(ModelError) as refused:
        load(folder)
    said = str(refused.value)
    assert server.url in said and SECRET in said and f"{server.url}=VARIABLE" in said
    assert "a-secret-of-mine" not in said
    with pytest.raises(ModelError, match=f"wants the key in the variable {SECRET}"):
        load(folder, Allowed(endpoints=(server.url,)))
    # Loading the class itself, around ``load``, is no way round.
    with pytest.raises(ModelError, match="was not allowed"):
        PromptClassifier.load(folder)
    assert server.calls == []
    with loading(Allowed(endpoints=(f"{server.url}=GATE_API_KEY",))) as granted:
        classifier = load(folder)
    assert granted == [f"asks m at {server.url}, with the key in GATE_API_KEY"]
    assert classifier.predict(["oil"])["topic"].labels.tolist() == [1]
    load(folder, Allowed(endpoints=(f"{server.url}=none",))).predict(["oil"])
    assert [call.authorization for call in server.calls] == ["Bearer the-key", "Bearer none"]


def test_an_address_is_the_one_that_was_allowed(server, prompt):
    with OpenAIServer() as other:
        folder = prompt(base_url=other.url)
        with pytest.raises(ModelError, match=f"at {other.url}, which was not allowed"):
            load(folder, Allowed(endpoints=(server.url,)))
        assert other.calls == []
    # The same address in other words.
    folder = prompt(base_url="http://gate.example/v1/")
    with loading(Allowed(endpoints=("http://GATE.example:80/v1",))) as granted:
        load(folder)
    assert granted == ["asks m at http://gate.example/v1, without a key"]


def test_an_allowed_address_does_not_send_texts_on(server, prompt):
    class SendsOn(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(307)
            self.send_header("location", f"{server.url}/chat/completions")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), SendsOn) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{other.server_port}/v1"
        classifier = load(prompt(base_url=address, retries=0), Allowed(endpoints=(address,)))
        with contextlib.suppress(LlmembedError):  # refused, or an answer that can't be read
            assert classifier.predict(["oil"])["topic"].invalid.all()
        other.shutdown()
    assert server.calls == []


@pytest.mark.parametrize(
    "address", ["http://me:hidden@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?key=hidden"]
)
def test_a_password_in_an_address_is_never_said(address, prompt):
    folder = prompt(base_url=address)
    for read in (lambda: load(folder), lambda: Allowed(endpoints=(address,))):
        with pytest.raises((ConfigError, ModelError)) as refused:
            read()
        assert "hidden" not in str(refused.value)


def test_a_key_does_not_travel_in_clear():
    with pytest.raises(ConfigError, match=r"in clear to http://10\.0\.0\.5:8000/v1"):
        Allowed(endpoints=("http://10.0.0.5:8000/v1=GATE_API_KEY",))
    for word in (
        "http://10.0.0.5:8000/v1",
        "http://10.0.0.5:8000/v1=none",
        "http://localhost:8000/v1=GATE_API_KEY",
        "http://[::1]:8000/v1=GATE_API_KEY",
        "https://gate.example/v1=GATE_API_KEY",
    ):
        assert Allowed(endpoints=(word,)).endpoints == (word,)
    with pytest.raises(ConfigError, match="allowed twice"):
        Allowed(endpoints=("https://H.example:443/v1", "https://h.example/v1/=A_KEY"))
    with pytest.raises(ConfigError, match="is allowed as https://HOST/v1"):
        Allowed(endpoints=("https://gate.example/v1=sk-1234",))


def test_files_and_prices_of_whoever_loads_are_not_the_manifests(server, prompt, tmp_path):
    cache = tmp_path / "elsewhere.sqlite"
    with pytest.raises(ModelError, match="names a cache"):
        load(prompt(cache=str(cache)), Allowed(endpoints=(server.url,)))
    assert not cache.exists()
    free = {"usd_per_1000_prompt_tokens": 0.0, "usd_per_1000_completion_tokens": 0.0}
    with pytest.raises(ModelError, match="names a prices"):
        load(prompt(prices=free), Allowed(endpoints=(server.url,)))


def test_other_models_of_a_prompt_are_asked_about_too(server, prompt):
    with pytest.raises(ModelError, match="someone/words is not in this machine's cache"):
        load(prompt(tokenizer="someone/words"), Allowed(endpoints=(server.url,)))
    folder = prompt()
    local = {"kind": "local", "model": "someone/model", "revision": COMMIT}
    edit(folder / "classifier.json", lambda it: it["settings"].update(generator=local))
    with pytest.raises(ModelError, match=f"someone/model at {COMMIT} is not in this machine"):
        load(folder)


def test_rationales_are_read_from_the_classifiers_folder(server, runtime, view, tmp_path):
    told = {"kind": "endpoint", "model": "m", "base_url": server.url, "api_key_env": None}
    method = Carp(generator=build_generator(told), k=0, view=view)
    folder = tmp_path / "deep" / "carp"
    method.fit([TOPIC], rows(4), rows(2), runtime, Silent()).save(folder)
    allowed = Allowed(endpoints=(server.url,))
    load(folder, allowed)
    (folder / "rationales-").mkdir()
    shutil.copy(folder / "rationales-topic.json", tmp_path / "deep" / "taken.json")
    manifest = folder / "classifier.json"
    manifest.write_text(manifest.read_text().replace('"topic"', '"/../../taken"'))
    with pytest.raises(ModelError, match="leads out of"):
        load(folder, allowed)


def test_a_worker_loads_what_was_allowed_where_the_command_runs(coded, tmp_path):
    from llmembed.pipelines.predict.labeller import MakeLabeller
    from llmembed.pipelines.predict.parts import Parts

    folder, _ = coded

    def made(allowed: Allowed) -> Any:
        make = MakeLabeller.of(
            folder, parts=Parts(address=str(tmp_path / "out")), keep=(), scores=False,
            unknown_below={}, of_a_run={}, allowed=allowed,
        )  # fmt: skip
        return pickle.loads(pickle.dumps(make))()  # noqa: S301

    assert made(Allowed(remote_code=True)).classifier.method == "probe"
    with pytest.raises(ModelError, match="runs Python code"):
        made(Allowed())


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    """A host that has nothing and notes what it is asked for, in ``hub.asked``."""

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    hub.asked = []
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()


RUNS = """
import contextlib, io, json, os, sys, urllib.error, urllib.request
from llmembed.cli import main
told = []
for words in json.loads(sys.argv[1]):
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/next")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def test_the_predict_command_refuses_in_one_sentence_and_says_what_it_grants(
    coded, server, prompt, probe, hub, tmp_path, monkeypatch
):
    folder, ran = coded
    monkeypatch.setenv(SECRET, "a-secret-of-mine")
    monkeypatch.setenv("GATE_API_KEY", "the-key")
    named = {"location": "someone/model", "revision": COMMIT, "weights_sha256": None}
    fetching = probe_that_says(probe, tmp_path / "fetching", **named)
    offline = {"location": "someone/else", "revision": COMMIT}
    gone = probe_that_says(probe, tmp_path / "gone", **offline)
    asking = prompt(api_key_env=SECRET)
    (tmp_path / "texts.csv").write_text("text\noil\n")

    def words(model: Path, name: str, *more: str) -> list[str]:
        told = ["predict", "--local", "--model", str(model), "--data", str(tmp_path / "texts.csv")]
        files = ["--files", str(tmp_path / "files"), "--output", str(tmp_path / name)]
        return [*told, *files, *more]

    runs = [
        words(folder, "a.csv"),
        words(asking, "b.csv"),
        words(fetching, "c.csv"),
        words(asking, "d.csv", "--allow-endpoint", f"{server.url}=GATE_API_KEY"),
        words(gone, "e.csv"),
        words(fetching, "f.csv", "--allow-hub"),
    ]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    done = subprocess.run(
        [sys.executable, "-c", RUNS, json.dumps(runs)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code, asks, fetches, granted, lost, fetched = json.loads(done.stdout.splitlines()[-1])
    for (status, out, said), option in (
        (code, "--trust-remote-code"),
        (asks, f"--allow-endpoint {server.url}=VARIABLE"),
        (fetches, "--allow-hub"),
    ):
        assert (status, out) == (2, "")
        assert len(said.splitlines()) == 1 and said.rstrip().endswith(option)
    assert not ran.exists()
    status, out, _ = granted
    assert status == 0
    assert out.splitlines()[0] == (
        f"the classifier asks m at {server.url}, with the key in GATE_API_KEY"
    )
    with (tmp_path / "d.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["oil"]
    assert [call.authorization for call in server.calls] == ["Bearer the-key"]
    assert lost[0] == 2 and "there is no folder someone/else" in lost[2]
    assert fetched[1].splitlines()[0] == (
        f"the classifier fetches someone/model at {COMMIT} from the hub"
    )
    *before, last = " ".join(hub.asked).split("/next")
    assert not "".join(before).strip(), "nothing was asked of the hub by any but the last"
    assert f"/someone/model/resolve/{COMMIT}/" in last
    assert not any(word in done.stdout + done.stderr for word in ("a-secret-of-mine", "the-key"))
