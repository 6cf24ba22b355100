// Calls of the server's own interfaces. The key stays in this module's memory.

let key = "";
export const setKey = (value) => { key = value; };

// What the server refused, in its own words; `status` 0: it could not be reached.
export class Refused extends Error {
  constructor(message, status, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

// {content, headers}. Throws Refused, or an AbortError where `signal` says so.
export async function call(path, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  let response, text;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server can’t be reached.", 0);
  }
  let content = null;
  try {
    content = JSON.parse(text);
  } catch {
    // Not ours, such as a proxy's page: the status is what there is to say.
  }
  if (!response.ok || content === null) {
    const words = content && content.error;
    const wait = Number(response.headers.get("retry-after")) || 0;
    throw new Refused(sentence(words || `The server answered ${response.status}.`), response.status, wait);
  }
  return { content, headers: response.headers };
}

export function sentence(words) {
  const text = String(words).trim();
  const ended = /[.!?]$/.test(text) ? text : `${text}.`;
  // What the interface calls truncate is a switch here.
  const here = ended.replace("truncate: true to have it cut", "switch on “Cut long texts”");
  return here.charAt(0).toUpperCase() + here.slice(1);
}

// Half of a surrogate pair can't be sent.
export const wellFormed = (text) => (text.toWellFormed ? text.toWellFormed() : text);
