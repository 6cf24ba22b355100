// Answers as elements of the page. Texts become text nodes, never markup.

const SHOWN = 6;

export const by = (id) => document.getElementById(id);

export function make(tag, given = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "class") element.className = value;
    else if (typeof value === "string" && name !== "value") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...inside);
  return element;
}

export const percent = (score) => (score > 0 && score < 0.0005 ? "< 0.1 %" : `${(score * 100).toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} %`);

export const number = (value) => value.toLocaleString("en");

// The first label of one text, below the threshold "unknown".
export function firstLabel(task, answer, unknown) {
  if (!answer.length) return null;
  const best = answer[0];
  const below = unknown && task.kind === "single" && task.unknown_below !== null
    && best.score !== null && best.score < task.unknown_below;
  return below ? { label: "unknown", score: best.score } : best;
}

// One task's answer: the first label large, all classes with bars; or tagged words.
export function showTask(task, answer, { unknown, text, titled }) {
  const box = make("div", { class: "task" });
  if (titled) box.append(make("h3", {}, task.name));
  if (task.kind === "tokens") {
    box.append(tagged(answer, text));
    return box;
  }
  if (!answer.length) {
    box.append(make("p", { class: "quiet" }, "The model gave no answer that could be read."));
    return box;
  }
  if (task.kind === "single") {
    const first = firstLabel(task, answer, unknown);
    const line = make("p", { class: "first" }, make("strong", {}, first.label));
    if (first.score !== null) line.append(" ", make("span", {}, percent(first.score)));
    box.append(line);
    if (first !== answer[0]) {
      box.append(make("p", { class: "quiet" },
        `No class reaches ${percent(task.unknown_below)}, the score chosen on validation.`));
    }
  } else {
    box.append(make("p", { class: "quiet" }, "Several classes may apply; each is scored on its own."));
  }
  if (answer[0].score === null) {
    if (task.kind !== "single") {
      box.append(make("p", {}, answer.map((row) => row.label).join(", ")));
    }
    return box;
  }
  box.append(bars(task, answer));
  return box;
}

function bars(task, answer) {
  const list = make("ol", { class: "bars", "aria-label": `Classes of ${task.name}` });
  answer.forEach((row, index) => {
    const fill = make("span", { class: "fill" });
    fill.style.width = `${Math.max(row.score * 100, 0.4)}%`;
    const item = make("li", { hidden: index >= SHOWN },
      make("span", { class: "name" }, ...breakable(row.label)),
      make("span", { class: "bar", "aria-hidden": "true" }, fill),
      make("span", { class: "score" }, percent(row.score)));
    list.append(item);
  });
  if (answer.length <= SHOWN) return list;
  const more = make("button", { type: "button", class: "link" }, `All ${answer.length} classes`);
  more.addEventListener("click", () => {
    for (const item of list.children) item.hidden = false;
    more.remove();
    list.tabIndex = -1;
    list.focus();
  });
  return make("div", {}, list, more);
}

// Long names may be cut after a dot, a slash, a dash, rather than anywhere.
function breakable(name) {
  return name.split(/(?<=[._/-])/).flatMap((piece, index) => (index ? [make("wbr"), piece] : [piece]));
}

function tagged(words, text) {
  const line = make("p", { class: "tagged" });
  let at = 0;
  for (const word of words) {
    line.append(slice(text, at, word.start));
    const plain = !word.entity || word.entity === "O";
    const shown = slice(text, word.start, word.end);
    line.append(plain ? shown : make("span", { class: "tag" }, shown, make("small", {}, word.entity)));
    at = word.end;
  }
  line.append(slice(text, at));
  return line;
}

// Offsets count characters as Python does, not UTF-16 units as JavaScript.
function slice(text, start, end) {
  return Array.from(text).slice(start, end).join("");
}

// The text with each piece tinted by its weight, and those that weigh most as a list.
export function showWords(found, text) {
  const line = by("words-text");
  line.replaceChildren();
  const letters = Array.from(text);
  const most = Math.max(...found.words.map((word) => Math.abs(word.weight)), 1e-9);
  let at = 0;
  for (const word of found.words) {
    line.append(letters.slice(at, word.start).join(""));
    const share = Math.abs(word.weight) / most;
    const level = share < 0.08 ? 0 : Math.ceil(share * 4);
    const piece = make("span", { title: signed(word.weight) }, word.text);
    if (level) piece.className = `${word.weight > 0 ? "for" : "against"} w${level}`;
    line.append(piece);
    at = word.end;
  }
  line.append(letters.slice(at).join(""));
  const list = by("words-list");
  list.replaceChildren();
  const ordered = [...found.words].filter((word) => word.weight).sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  for (const word of ordered.slice(0, 5)) {
    const fill = make("span", { class: word.weight > 0 ? "fill" : "fill against" });
    fill.style.width = `${Math.max((Math.abs(word.weight) / most) * 100, 0.4)}%`;
    list.append(make("li", {},
      make("span", { class: "name" }, shortened(word.text)),
      make("span", { class: "bar", "aria-hidden": "true" }, fill),
      make("span", { class: "score" }, signed(word.weight))));
  }
}

export const shortened = (text, most = 120) => {
  const letters = Array.from(text.replace(/\s+/g, " ").trim());
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : letters.join("");
};

const signed = (weight) => `${weight < 0 ? "−" : "+"}${Math.abs(weight).toFixed(3)}`;

// Latency and energy of one answer, from its headers.
export function tookOf(headers) {
  const millis = (name) => `${Number(headers.get(name) || 0).toLocaleString("en", { maximumFractionDigits: 1 })} ms`;
  const how = headers.get("x-energy-estimated") === "true" ? "estimated" : "measured";
  return {
    Time: millis("x-total-time"),
    "In the model": millis("x-inference-time"),
    Energy: `${energy(Number(headers.get("x-energy-joules") || 0))}, ${how}`,
    Tokens: number(Number(headers.get("x-compute-tokens") || 0)),
    Model: headers.get("x-model") || "",
  };
}

function energy(joules) {
  if (joules >= 1000) return `${(joules / 1000).toPrecision(3)} kJ`;
  if (joules >= 1 || joules === 0) return `${Number(joules.toPrecision(3))} J`;
  return `${Number((joules * 1000).toPrecision(3))} mJ`;
}

export function showFigures(figures) {
  by("figures").replaceChildren(...Object.entries(figures).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}
