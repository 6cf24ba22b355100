// The page: what is asked, when, and where the answer goes.

import { call, Refused, sentence, setKey, wellFormed } from "./client.js";
import { offerCorrection } from "./correct.js";
import { startFiles } from "./file.js";
import { by, firstLabel, make, number, percent, showFigures, showTask, showWords, tookOf } from "./show.js";

let info = null;
let latest = 0;    // the number of the last text asked; answers to earlier ones are dropped

const page = {
  model: () => info.models.find((model) => model.name === by("model").value) || info.models[0],
  info: () => info,
  unknown: () => by("unknown").checked && !by("unknown-label").hidden,
  truncate: () => by("truncate").checked,
  askKey,
};

async function start() {
  by("start-error").textContent = "";
  try {
    info = (await call("info")).content;
  } catch (error) {
    if (error.status === 401) return askKey();
    by("start-error").textContent = error.message;
    return;
  }
  by("key-form").hidden = true;
  by("ready").hidden = false;
  by("model").replaceChildren(...info.models.map((model) => make("option", { value: model.name },
    model.version === null ? model.name : `${model.name} · version ${model.version}`)));
  modelChosen();
}

function askKey(words = "") {
  const again = !by("key-form").hidden;
  by("key-form").hidden = false;
  by("key-error").textContent = words || (again ? "The server does not take this key." : "");
  by("key").focus();
  by("key").select();
}

function modelChosen() {
  const model = page.model();
  const kinds = { single: "classes", multi: "classes, several may apply", tokens: "tags for words" };
  const tasks = model.tasks.map((task) => `${task.name}: ${number(task.classes.length)} ${kinds[task.kind]}`);
  const tokens = model.max_tokens === null ? [] : [`reads ${number(model.max_tokens)} tokens`];
  by("model-facts").textContent = [`method ${model.method}`, ...tasks, ...tokens].join("  ·  ");
  const chosen = model.tasks.filter((task) => task.unknown_below !== null && task.kind === "single");
  by("unknown-label").hidden = !chosen.length;
  if (chosen.length) {
    by("unknown-words").textContent =
      `Answer “unknown” below ${chosen.map((task) => percent(task.unknown_below)).join(" / ")}`;
  }
  by("result").hidden = true;
}

async function classify() {
  const text = wellFormed(by("text").value);
  by("text-error").textContent = "";
  by("said").textContent = "";
  if (!text.trim()) {
    by("text-error").textContent = "There is no text yet.";
    by("text").focus();
    return;
  }
  const mine = ++latest;
  const model = page.model();
  const names = model.tasks.map((task) => task.name);
  busy(true);
  try {
    const { content, headers } = await call("predict", {
      inputs: text, model: model.name, task: names, truncate: page.truncate(),
    });
    if (mine !== latest) return;
    showAnswer(model, text, content, headers);
    if (by("weigh").checked) await weigh(mine, model, text);
  } catch (error) {
    if (mine !== latest) return;
    by("result").hidden = true;
    if (error.status === 401) return askKey("The server asks for a key, or for another one.");
    if (!(error instanceof Refused)) throw error;
    by("text-error").textContent = error.message.replace(/^Text 0 has/, "The text has");
  } finally {
    if (mine === latest) busy(false);
  }
}

function showAnswer(model, text, content, headers) {
  const titled = model.tasks.length > 1;
  by("tasks").replaceChildren(...model.tasks.map((task) =>
    showTask(task, content[task.name], { unknown: page.unknown(), text, titled })));
  showFigures(tookOf(headers));
  by("words").hidden = true;
  by("result").hidden = false;
  by("said").textContent = model.tasks.map((task) => {
    const start = titled ? `${task.name}: ` : "";
    if (task.kind === "tokens") return `${start}words are tagged`;
    const first = firstLabel(task, content[task.name], page.unknown());
    return start + (first === null ? "no answer" : `${first.label}${first.score === null ? "" : `, ${percent(first.score)}`}`);
  }).join("; ");
  offerWords(model, content);
  offerCorrection(model, text, content, headers.get("x-request-id"));
}

// The classes whose words may be weighed, the answers first.
function offerWords(model, content) {
  const select = by("words-label");
  select.replaceChildren();
  for (const task of model.tasks) {
    const rows = content[task.name];
    if (task.kind === "tokens" || !rows.length || rows[0].score === null) continue;
    const options = rows.map((row) => make("option", { value: JSON.stringify([task.name, row.label]) }, row.label));
    if (model.tasks.length > 1) select.append(make("optgroup", { label: task.name }, ...options));
    else select.append(...options);
  }
}

async function weigh(mine, model, text) {
  if (!by("words-label").value) return;
  const [task, label] = JSON.parse(by("words-label").value);
  by("words-note").textContent = "Leaving words out…";
  try {
    const { content, headers } = await call("explain", {
      text, model: model.name, task, label, truncate: page.truncate(),
    });
    if (mine !== latest) return;
    showWords(content, text);
    const took = tookOf(headers);
    by("words-note").textContent =
      `${sentence(`${content.method}: ${content.note}`)} It took ${took.Time} and ${took.Energy.replace(", ", " (")}).`;
    by("words").hidden = !content.words.length;
  } catch (error) {
    if (mine !== latest || !(error instanceof Refused)) return;
    by("words").hidden = false;
    by("words-text").replaceChildren();
    by("words-list").replaceChildren();
    by("words-note").textContent = error.message;
  }
}

function busy(on) {
  by("classify").setAttribute("aria-disabled", on);
  by("classify").textContent = on ? "Classifying…" : "Classify";
  by("text-form").setAttribute("aria-busy", on);
}

by("docs").hidden = document.documentElement.dataset.docs === "no";
by("model").addEventListener("change", () => { latest += 1; busy(false); modelChosen(); });
by("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (by("classify").getAttribute("aria-disabled") !== "true") classify();
});
by("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) by("text-form").requestSubmit();
});
by("words-label").addEventListener("change", () => weigh(latest, page.model(), wellFormed(by("text").value)));
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(by("key").value.trim());
  by("key").value = "";
  start();
});
startFiles(page);
start();
