// A corrected label, sent to /feedback.

import { call, Refused } from "./client.js";
import { by, make } from "./show.js";

let asked = null;   // what the form corrects

// One choice a task; tagged words are not corrected here.
export function offerCorrection(model, text, content, requestId) {
  const tasks = model.tasks.filter((task) => task.kind !== "tokens");
  by("correct").hidden = document.documentElement.dataset.feedback === "no" || !tasks.length;
  by("correct").open = false;
  by("correct-said").textContent = "";
  by("correct-error").textContent = "";
  const answered = {};
  for (const task of tasks) answered[task.name] = content[task.name].length ? content[task.name][0].label : undefined;
  asked = { model: model.name, text, requestId, tasks, answered };
  by("correct-tasks").replaceChildren(...tasks.map((task) => choice(task, content[task.name], tasks.length > 1)));
}

function choice(task, answer, titled) {
  const words = titled ? `Right class of ${task.name}` : "Right class";
  if (task.kind === "multi") {
    const likely = new Set(answer.filter((row) => row.score === null || row.score >= 0.5).map((row) => row.label));
    return make("fieldset", { "data-task": task.name },
      make("legend", {}, titled ? `Right classes of ${task.name}` : "Right classes"),
      ...task.classes.map((name) => make("label", { class: "switch" },
        make("input", { type: "checkbox", value: name, checked: likely.has(name) }), ` ${name}`)));
  }
  const list = make("datalist", { id: `classes-${task.name}` },
    ...task.classes.map((name) => make("option", { value: name })));
  return make("label", {}, words,
    make("input", { "data-task": task.name, list: list.id, autocomplete: "off", placeholder: titled ? "leave empty if it is right" : "" }), list);
}

function labelOf(task) {
  const field = [...by("correct-tasks").querySelectorAll("[data-task]")]
    .find((element) => element.dataset.task === task.name);
  if (task.kind !== "multi") return field.value.trim();
  return [...field.querySelectorAll("input:checked")].map((box) => box.value);
}

async function send() {
  by("correct-error").textContent = "";
  by("correct-said").textContent = "";
  const given = asked.tasks.map((task) => ({ task, label: labelOf(task) }));
  // A field left empty says that the answer was right, which the next fit needs to know, too.
  const rows = given.map((row) => (row.label === "" ? { ...row, label: asked.answered[row.task.name] } : row))
    .filter((row) => row.label !== undefined);
  if (given.every((row) => row.label === "")) {
    by("correct-error").textContent = "Choose the right class first.";
    return;
  }
  try {
    for (const { task, label } of rows) {
      const fresh = typeof label === "string" && !task.classes.includes(label);
      if (fresh && !window.confirm(`“${label}” is no class of ${task.name}. Add it as a new one?`)) return;
      await call("feedback", {
        text: asked.text, model: asked.model, task: task.name, label,
        request_id: asked.requestId, new_label: fresh,
      });
    }
    by("correct-said").textContent = "Stored. Thank you.";
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    by("correct-error").textContent = error.message;
  }
}

by("correct-form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
