// Many rows through /predict: in pieces within the limits, two at a time, each row with its answer
// or its reason.

import { call, Refused } from "./client.js";

const ROWS = 32;              // of a piece; small, so that the progress moves
const CHARACTERS = 200_000;   // of a piece, well below the limit of a request's body
const AT_ONCE = 2;            // so that the model need not wait for the next piece
const TRIES = 6;

// texts: [{index, text}]. `done(index, {answer})` or `done(index, {error})` is called once a row.
// Throws what stops everything: a missing key, a model that is gone, an abort.
export async function labelAll(texts, { ask, most, signal, done }) {
  const pieces = cut(texts, Math.min(ROWS, most));
  let next = 0;
  const stop = new AbortController();
  const stopped = () => stop.abort();
  signal.addEventListener("abort", stopped);
  const worker = async () => {
    while (next < pieces.length && !stop.signal.aborted) {
      await send(pieces[next++], ask, stop.signal, done);
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  } catch (error) {
    stop.abort();
    throw error;
  } finally {
    signal.removeEventListener("abort", stopped);
  }
  if (signal.aborted) throw new DOMException("cancelled", "AbortError");
}

function cut(texts, most) {
  const pieces = [];
  let piece = [], characters = 0;
  for (const row of texts) {
    if (piece.length && (piece.length >= most || characters + row.text.length > CHARACTERS)) {
      pieces.push(piece);
      piece = [];
      characters = 0;
    }
    piece.push(row);
    characters += row.text.length;
  }
  if (piece.length) pieces.push(piece);
  return pieces;
}

async function send(piece, ask, signal, done) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const { content } = await call("predict", ask(piece.map((row) => row.text)), signal);
      piece.forEach((row, place) => {
        const answer = {};
        for (const task of Object.keys(content)) answer[task] = content[task][place];
        done(row.index, { answer });
      });
      return;
    } catch (error) {
      if (!(error instanceof Refused) || error.status === 401 || error.status === 404) throw error;
      // Overloaded, not ready, restarting: come again, later each time.
      const passing = [0, 429, 502, 503].includes(error.status);
      if (passing && attempt < TRIES) {
        await pause(Math.max(error.wait, 0.25 * 2 ** attempt), signal);
        continue;
      }
      // Something is wrong with one of them, or all are too much: look for it in the halves.
      if (!passing && piece.length > 1) {
        const middle = piece.length >> 1;
        await send(piece.slice(0, middle), ask, signal, done);
        await send(piece.slice(middle), ask, signal, done);
        return;
      }
      // "text 0" would be its place in the request.
      const words = error.message.replace(/^Text 0 has/, "It has");
      piece.forEach((row) => done(row.index, { error: words }));
      return;
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const give = () => reject(new DOMException("cancelled", "AbortError"));
    if (signal.aborted) return give();
    const timer = setTimeout(() => { signal.removeEventListener("abort", give); resolve(); }, seconds * 1000);
    signal.addEventListener("abort", () => { clearTimeout(timer); give(); }, { once: true });
  });
}
