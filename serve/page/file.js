// A csv file: read here, labelled by the server, given back with labels.

import { labelAll } from "./batch.js";
import { Refused, wellFormed } from "./client.js";
import { line, parse, textColumn } from "./csv.js";
import { by, firstLabel, make, number, shortened } from "./show.js";

const MOST_BYTES = 64 * 2 ** 20;
const MOST_ERRORS = 200;     // shown; the file for download holds all
const SAY_EVERY = 5000;      // milliseconds between what a screen reader is told

let table = null;
let found = [];              // by row: {answer} or {error}
let running = null;          // AbortController of the run
let address = null;          // of the file for download

export function startFiles(page) {
  by("file").addEventListener("change", () => read(by("file").files[0]));
  by("column").addEventListener("change", showSample);
  by("cancel").addEventListener("click", () => running && running.abort());
  by("file-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (table && !running) run(page);
  });
  window.addEventListener("beforeunload", (event) => { if (running) event.preventDefault(); });
}

async function read(file) {
  table = null;
  forget();
  by("file-error").textContent = "";
  by("file-facts").textContent = "";
  by("column-label").hidden = by("file-sample").hidden = true;
  by("label-rows").disabled = true;
  if (!file) return;
  try {
    if (file.size > MOST_BYTES) {
      throw new Error(`The file is larger than ${MOST_BYTES / 2 ** 20} MB; “llmembed predict” labels files of any size.`);
    }
    const bytes = await file.arrayBuffer();
    if (file !== by("file").files[0]) return;   // another one was chosen meanwhile
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      throw new Error("The file is not UTF-8; save it as “CSV UTF-8”.");
    }
    table = { ...parse(text), name: file.name };
  } catch (error) {
    by("file-error").textContent = error.message;
    return;
  }
  const { header, rows } = table;
  by("column").replaceChildren(...header.map((name, index) =>
    make("option", { value: index }, name || `column ${index + 1}`)));
  by("column").value = textColumn(header, rows);
  by("column-label").hidden = false;
  const several = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
  by("file-facts").textContent = `${several(rows.length, "row")}, ${several(header.length, "column")}`;
  by("label-rows").disabled = false;
  showSample();
}

function showSample() {
  const column = Number(by("column").value);
  const first = table.rows.find((row) => (row.values[column] || "").trim());
  by("file-sample").hidden = !first;
  if (first) by("file-sample").textContent = shortened(first.values[column], 160);
}

// What an earlier run left on the page.
function forget() {
  if (running) running.abort();
  if (address) URL.revokeObjectURL(address);
  address = null;
  found = [];
  by("download").hidden = by("errors").hidden = by("running").hidden = true;
  by("errors-rows").replaceChildren();
  by("errors-more").textContent = "";
}

async function run(page) {
  forget();
  by("file-error").textContent = "";
  const mine = { table, model: page.model(), unknown: page.unknown(), column: Number(by("column").value) };
  const { rows, header } = mine.table;
  const results = found = new Array(rows.length);
  const control = running = new AbortController();
  const begun = performance.now();
  let finished = 0, failed = 0, said = 0;
  by("label-rows").hidden = true;
  by("cancel").hidden = by("running").hidden = false;
  by("cancel").focus();
  by("progress").max = rows.length;

  const show = () => {
    if (found !== results) return;
    by("progress").value = finished;
    const now = performance.now();
    const left = finished ? ((now - begun) / finished) * (rows.length - finished) / 1000 : 0;
    const words = `${number(finished)} of ${number(rows.length)} rows` +
      (failed ? `, ${number(failed)} without a label` : "") +
      (finished < rows.length && now - begun > 2000 ? `, about ${duration(left)} left` : "");
    by("progress-words").textContent = words;
    if (now - said > SAY_EVERY) {
      said = now;
      by("file-said").textContent = words;
    }
  };
  const done = (index, result) => {
    if (results[index]) return;
    results[index] = result;
    finished += 1;
    if (result.error) {
      failed += 1;
      if (found === results) addError(rows[index], mine.column, result.error, failed);
    }
    show();
  };

  const texts = [];
  rows.forEach((row, index) => {
    const text = row.values[mine.column];
    if (row.values.length !== header.length) {
      done(index, { error: `The row has ${row.values.length} values, the header ${header.length}.` });
    } else if (!text.trim()) done(index, { error: "The text is empty." });
    else texts.push({ index, text: wellFormed(text) });
  });
  show();
  const names = mine.model.tasks.map((task) => task.name);
  const truncate = page.truncate();
  let stopped = "";
  try {
    await labelAll(texts, {
      ask: (inputs) => ({ inputs, model: mine.model.name, task: names, truncate }),
      most: page.info().max_client_batch_size,
      signal: control.signal,
      done,
    });
  } catch (error) {
    stopped = error.name === "AbortError" ? "Cancelled" : error.message;
    if (error.status === 401) page.askKey("The server asks for a key, or for another one.");
    else if (error.name !== "AbortError" && !(error instanceof Refused)) throw error;
  } finally {
    if (running === control) running = null;
    if (found === results) {
      by("cancel").hidden = true;
      by("label-rows").hidden = false;
    }
  }
  if (found !== results) return;
  if (stopped) {
    const words = `${sentenceEnd(stopped)} ${number(finished)} of ${number(rows.length)} rows are done.`;
    by("progress-words").textContent = words;
    if (stopped !== "Cancelled") by("file-error").textContent = stopped;
  }
  by("file-said").textContent = by("progress-words").textContent;
  if (finished) offer(mine, results);
}

const sentenceEnd = (words) => (words.endsWith(".") ? words : `${words}.`);

function duration(seconds) {
  return seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}

function addError(row, column, words, count) {
  by("errors").hidden = false;
  by("errors-title").textContent = count === 1 ? "1 row without a label" : `${number(count)} rows without a label`;
  if (count > MOST_ERRORS) {
    by("errors-more").textContent = `The first ${MOST_ERRORS} are shown; the file for download says why for all.`;
    return;
  }
  by("errors-rows").append(make("tr", {},
    make("td", {}, number(row.line)),
    make("td", {}, shortened(row.values[column] || "", 60) || "–"),
    make("td", {}, words)));
}

// The file as it was, with the answers' columns: label and score, by task where there are several.
function offer({ table: { delimiter, header, rows, name }, model, unknown }, results) {
  const titled = model.tasks.length > 1;
  const taken = new Set(header);
  const column = (wanted) => {
    let free = wanted;
    while (taken.has(free)) free = `predicted_${free}`;
    taken.add(free);
    return free;
  };
  const added = model.tasks.flatMap((task) =>
    ["label", "score"].map((word) => column(titled ? `${task.name}_${word}` : word)));
  const parts = ["\uFEFF", line([...header, ...added, column("error")], delimiter)];
  rows.forEach((row, index) => {
    const result = results[index] || { error: "Not done." };
    const values = Array.from(header, (_, place) => row.values[place] ?? "");
    const extra = row.values.slice(header.length);
    const words = extra.length ? `${result.error} Beyond the header: ${extra.join(delimiter)}` : result.error;
    const answers = model.tasks.flatMap((task) =>
      result.answer ? written(task, result.answer[task.name], unknown) : ["", ""]);
    parts.push(line([...values, ...answers, words || ""], delimiter));
  });
  address = URL.createObjectURL(new Blob(parts, { type: "text/csv;charset=utf-8" }));
  by("download").href = address;
  by("download").download = name.replace(/(\.[^.]*)?$/, "-labelled.csv");
  by("download").hidden = false;
}

// The label and its score as `llmembed fit` can read them again.
function written(task, answer, unknown) {
  if (task.kind === "tokens") {
    return [answer.map((word) => word.entity ?? "").join(" "), answer.map((word) => word.score ?? "").join(" ")];
  }
  if (task.kind === "multi") {
    const chosen = answer.filter((row) => row.score === null || row.score >= 0.5);
    return [chosen.map((row) => row.label).join(","), answer.length ? answer[0].score ?? "" : ""];
  }
  const first = firstLabel(task, answer, unknown);
  return first === null ? ["", ""] : [first.label, first.score ?? ""];
}
