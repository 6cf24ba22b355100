// Delimited text, by RFC 4180: quotes, quoted line ends, doubled quotes.

// The delimiter that the first line, outside of quotes, holds most of.
export function delimiterOf(text) {
  const counts = { ",": 0, ";": 0, "\t": 0 };
  let quoted = false;
  for (const letter of text) {
    if (letter === '"') quoted = !quoted;
    else if (!quoted && (letter === "\n" || letter === "\r")) break;
    else if (!quoted && letter in counts) counts[letter] += 1;
  }
  return Object.keys(counts).reduce((best, next) => (counts[next] > counts[best] ? next : best));
}

// {delimiter, header, rows: [{line, values}]}; `line` is where the row starts, from 1. Empty lines
// are passed over. Throws an Error of one sentence.
export function parse(text) {
  if (text.startsWith("\uFEFF")) text = text.slice(1);
  const delimiter = delimiterOf(text);
  const rows = [];
  let values = [], from = 0, at = 0, line = 1, started = 1;
  const size = text.length;
  const endRow = () => {
    if (values.length > 1 || values[0] !== "") rows.push({ line: started, values });
    values = [];
  };
  while (at < size) {
    if (!values.length) started = line;
    let value;
    if (text[at] === '"') {
      let pieces = "";
      from = at + 1;
      for (;;) {
        const end = text.indexOf('"', from);
        if (end < 0) throw new Error(`The quote that opens in line ${started} is never closed.`);
        pieces += text.slice(from, end);
        at = end + 1;
        if (text[at] !== '"') break;
        pieces += '"';
        from = at + 1;
      }
      line += lineEnds(pieces);
      // What follows a closing quote before the delimiter belongs to the value.
      from = at;
      while (at < size && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") at += 1;
      value = pieces + text.slice(from, at);
    } else {
      from = at;
      while (at < size && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") at += 1;
      value = text.slice(from, at);
    }
    values.push(value);
    if (at >= size) break;
    if (text[at] === delimiter) {
      at += 1;
      if (at >= size) values.push("");
      continue;
    }
    at += text[at] === "\r" && text[at + 1] === "\n" ? 2 : 1;
    line += 1;
    endRow();
  }
  if (values.length) endRow();
  if (!rows.length) throw new Error("The file is empty.");
  const header = rows.shift().values;
  const twice = header.find((name, index) => header.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`Two columns are called “${twice}”.`);
  if (!rows.length) throw new Error("The file has a header and no rows.");
  return { delimiter, header, rows };
}

function lineEnds(text) {
  return (text.match(/\r\n|\r|\n/g) || []).length;
}

// One line, its end included; what would be read otherwise is quoted.
export function line(values, delimiter) {
  return values.map((value) => quoted(value, delimiter)).join(delimiter) + "\r\n";
}

function quoted(value, delimiter) {
  const text = String(value ?? "");
  const plain = !/["\r\n]/.test(text) && !text.includes(delimiter);
  return plain ? text : `"${text.replaceAll('"', '""')}"`;
}

// The column that most likely holds the text: one called so, or the one with the longest values.
export function textColumn(header, rows) {
  const known = ["text", "body", "content", "message", "review", "sentence", "document", "title"];
  for (const name of known) {
    const found = header.findIndex((column) => column.trim().toLowerCase() === name);
    if (found >= 0) return found;
  }
  const lengths = header.map((_, index) =>
    rows.slice(0, 200).reduce((sum, row) => sum + (row.values[index] || "").length, 0));
  return lengths.indexOf(Math.max(...lengths));
}
