// Markdown as a model writes it, as elements. Text only ever becomes text nodes: nothing here parses HTML, and the
// page's policy (require-trusted-types-for 'script') would refuse it. Pictures are shown as links, since nothing is
// loaded from elsewhere.

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}>[ ]?(.*)$/;
const ITEM = /^( {0,8})([-*+]|\d{1,9}[.)])(?:[ \t]+(.*)|[ \t]*)$/;
const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BLANK = /^[ \t]*$/;
const ADDRESS = /^(?:https?:\/\/|mailto:)[^\s<>]+$/i;
const BARE = /https?:\/\/[^\s<>]+/gi;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}_]/u;
const DEEPEST = 12;

/** The blocks of a text: [{kind, raw, ...}]. A block whose raw text is the same renders the same. */
export function blocks(text, depth = 0) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(lines[at])) {
      at += 1;
      continue;
    }
    const [block, end] = read(lines, at, depth);
    block.raw = lines.slice(at, end).join("\n");
    found.push(block);
    at = end;
  }
  return found;
}

/** A block as an element. */
export function element(block) {
  return MAKERS[block.kind](block);
}

/** Keeps `parent` showing `text`: blocks that did not change keep their elements (and what is selected in them). */
export class Shown {
  constructor(parent) {
    this.parent = parent;
    this.raws = [];
  }

  set(text) {
    const next = blocks(text);
    let same = 0;
    while (same < next.length && this.raws[same] === next[same].raw) same += 1;
    while (this.parent.childElementCount > same) this.parent.lastElementChild.remove();
    this.parent.append(...next.slice(same).map(element));
    this.raws = next.map((block) => block.raw);
  }
}

function read(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", level: heading[1].length, text: heading[2] ?? "" }, at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (line.includes("|") && at + 1 < lines.length && DIVIDER.test(lines[at + 1]) && lines[at + 1].includes("-")) {
    const heads = cells(line);
    if (heads.length === cells(lines[at + 1]).length) return table(lines, at, heads);
  }
  return paragraph(lines, at, depth);
}

function code(lines, at, [, indent, ticks, info]) {
  const closing = new RegExp(`^ {0,3}\\${ticks[0]}{${ticks.length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const spaces = new RegExp(`^ {0,${indent.length}}`);
  const text = lines.slice(at + 1, end).map((line) => line.replace(spaces, ""));
  return [{ kind: "code", language: info.trim().split(/\s/)[0], text: text.join("\n") }, Math.min(end + 1, lines.length)];
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(at, end).map((line) => QUOTE.exec(line)[1]);
  return [{ kind: "quote", inner: blocks(inner.join("\n"), depth + 1) }, end];
}

function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  const kind = (mark) => (/\d/.test(mark) ? mark.at(-1) : mark);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || kind(item[2]) !== kind(first[2]) || RULE.test(lines[end])) break;
    const inside = item[1].length + 2;
    const body = [item[3] ?? ""];
    end += 1;
    while (end < lines.length) {
      const indent = /^ */.exec(lines[end].replace(/\t/g, "    "))[0].length;
      if (BLANK.test(lines[end])) {
        let next = end + 1;
        while (next < lines.length && BLANK.test(lines[next])) next += 1;
        if (next >= lines.length || /^ */.exec(lines[next])[0].length < inside) break;
      } else if (indent < inside && (ITEM.test(lines[end]) || starts(lines, end))) break;
      body.push(lines[end].replace(/\t/g, "    ").slice(Math.min(indent, item[1].length + item[2].length + 1)));
      end += 1;
    }
    items.push(blocks(body.join("\n"), depth + 1));
    let next = end;
    while (next < lines.length && BLANK.test(lines[next])) next += 1;
    const more = next < lines.length && next > end ? ITEM.exec(lines[next]) : null;
    if (more && kind(more[2]) === kind(first[2])) end = next;
  }
  const number = /\d/.test(first[2]) ? Number.parseInt(first[2], 10) : null;
  return [{ kind: "list", number, items }, end];
}

function table(lines, at, heads) {
  const sides = cells(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "middle" : "right") : ""));
  const rows = [];
  let end = at + 2;
  while (end < lines.length && !BLANK.test(lines[end]) && lines[end].includes("|")) {
    const row = cells(lines[end]);
    while (row.length < heads.length) row.push("");
    rows.push(row);
    end += 1;
  }
  return [{ kind: "table", heads, sides, rows }, end];
}

function cells(line) {
  const found = [""];
  let ticks = false;
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  for (let at = 0; at < inner.length; at += 1) {
    if (inner[at] === "\\" && inner[at + 1] === "|") {
      found[found.length - 1] += "|";
      at += 1;
    } else if (inner[at] === "|" && !ticks) found.push("");
    else {
      if (inner[at] === "`") ticks = !ticks && inner.includes("`", at + 1);
      found[found.length - 1] += inner[at];
    }
  }
  return found.map((cell) => cell.trim());
}

function starts(lines, at) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line);
}

function paragraph(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && !BLANK.test(lines[end]) && !starts(lines, end)) {
    const item = depth < DEEPEST && ITEM.exec(lines[end]);
    if (item && (item[3] ?? "") !== "" && (!/\d/.test(item[2]) || Number.parseInt(item[2], 10) === 1)) break;
    end += 1;
  }
  return [{ kind: "paragraph", text: lines.slice(at, end).map((line) => line.trim()).join("\n") }, end];
}

const MAKERS = {
  rule: () => document.createElement("hr"),
  paragraph: (block) => filled("p", block.text),
  heading: (block) => filled(`h${Math.min(block.level + 2, 6)}`, block.text), // the page has h1, a message h2
  quote: (block) => made("blockquote", block.inner.map(element)),
  list: (block) => {
    const node = made(block.number === null ? "ul" : "ol", block.items.map(item));
    if (block.number !== null && block.number !== 1) node.start = block.number;
    return node;
  },
  table: (block) => {
    const row = (kind) => (texts) =>
      made("tr", texts.map((text, index) => {
        const cell = filled(kind, text);
        if (kind === "th") cell.scope = "col";
        if (block.sides[index]) cell.className = block.sides[index];
        return cell;
      }));
    const node = made("table", [made("thead", [row("th")(block.heads)]), made("tbody", block.rows.map(row("td")))]);
    const frame = made("div", [node]);
    frame.className = "wide-table";
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", "Table");
    return frame;
  },
  code: (block) => {
    const copy = made("button", ["Copy"]);
    copy.type = "button";
    copy.className = "plain copy-code";
    const head = made("div", [made("span", [block.language || "code"]), copy]);
    head.className = "code-head";
    const pre = made("pre", [made("code", [block.text])]);
    pre.tabIndex = 0;
    const frame = made("div", [head, pre]);
    frame.className = "code";
    return frame;
  },
};

function item(inner) {
  const task = inner[0]?.kind === "paragraph" && /^\[([ xX])\][ \n]/.exec(inner[0].text);
  if (task) inner = [{ ...inner[0], text: (task[1] === " " ? "☐ " : "☑ ") + inner[0].text.slice(4) }, ...inner.slice(1)];
  const tight = inner[0]?.kind === "paragraph" && inner.filter((block) => block.kind === "paragraph").length === 1;
  return made("li", tight ? [...inline(inner[0].text), ...inner.slice(1).map(element)] : inner.map(element));
}

function made(name, children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

function filled(name, text) {
  return made(name, inline(text));
}

/** What stands inside a paragraph, as nodes and texts. */
export function inline(text, depth = 0, linked = false) {
  const out = [];
  const missing = new Set(); // closers that were looked for and are not there: looking twice would take forever
  let plain = "";
  const flush = () => {
    if (plain) out.push(...(linked ? broken(plain) : addresses(plain)));
    plain = "";
  };
  let at = 0;
  while (at < text.length) {
    const found = depth < DEEPEST && special(text, at, depth, linked, missing);
    if (found) {
      plain += found.text ?? "";
      if (found.node) {
        flush();
        out.push(found.node);
      }
      at = found.end;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  flush();
  return out;
}

function special(text, at, depth, linked, missing) {
  const letter = text[at];
  if (letter === "\\" && at + 1 < text.length && PUNCTUATION.test(text[at + 1])) return { text: text[at + 1], end: at + 2 };
  if (letter === "`") return span(text, at, missing);
  if (letter === "*" || letter === "_" || letter === "~") return stressed(text, at, depth, linked, missing);
  if (linked) return null;
  if (letter === "[" || (letter === "!" && text[at + 1] === "[")) return link(text, at, depth, missing);
  if (letter === "<") {
    const end = text.indexOf(">", at);
    const address = text.slice(at + 1, end);
    return end > 0 && ADDRESS.test(address) ? { node: anchor(address, [address]), end: end + 1 } : null;
  }
  return null;
}

function span(text, at, missing) {
  const ticks = /^`+/.exec(text.slice(at, at + 64))[0];
  let end = missing.has(ticks) ? -1 : text.indexOf(ticks, at + ticks.length);
  while (end !== -1 && text[end + ticks.length] === "`") {
    while (text[end] === "`") end += 1;
    end = text.indexOf(ticks, end);
  }
  if (end === -1) {
    missing.add(ticks);
    return { text: ticks, end: at + ticks.length };
  }
  const inner = text.slice(at + ticks.length, end).replace(/\n/g, " ");
  const trimmed = /^ .*[^ ].* $|^ [^ ] $/.test(inner) ? inner.slice(1, -1) : inner;
  return { node: made("code", [trimmed]), end: end + ticks.length };
}

function stressed(text, at, depth, linked, missing) {
  const mark = text[at];
  let size = 1;
  while (text[at + size] === mark) size += 1;
  const whole = { text: text.slice(at, at + size), end: at + size };
  if (size > 3 || (mark === "~" && size !== 2) || !/\S/.test(text[at + size] ?? " ")) return whole;
  if (mark === "_" && at > 0 && WORD.test(text[at - 1])) return whole;
  const closer = mark.repeat(size);
  if (missing.has(closer)) return whole;
  let end = text.indexOf(closer, at + size);
  for (; end !== -1; end = text.indexOf(closer, end)) {
    let run = size;
    while (text[end + run] === mark) run += 1;
    const inWord = mark === "_" && WORD.test(text[end + run] ?? " ");
    if (run === size && /\S/.test(text[end - 1]) && !inWord) break;
    end += run;
  }
  if (end === -1) {
    missing.add(closer);
    return whole;
  }
  const inner = inline(text.slice(at + size, end), depth + 1, linked);
  const names = mark === "~" ? ["del"] : [["em"], ["strong"], ["strong", "em"]][size - 1];
  const node = names.reduce((children, name) => [made(name, children)], inner)[0];
  return { node, end: end + size };
}

function link(text, at, depth, missing) {
  const open = text[at] === "!" ? at + 1 : at;
  if (missing.has("](")) return null;
  const middle = text.indexOf("](", open);
  const end = middle === -1 ? -1 : text.indexOf(")", middle);
  if (end === -1) {
    missing.add("](");
    return null;
  }
  const name = text.slice(open + 1, middle);
  const address = text.slice(middle + 2, end).trim().split(/\s/)[0].replace(/^<|>$/g, "");
  if (name.includes("[") || name.includes("\n\n") || !ADDRESS.test(address)) return null;
  return { node: anchor(address, name ? inline(name, depth + 1, true) : [address]), end: end + 1 };
}

function anchor(address, children) {
  const node = made("a", children);
  node.href = address;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}

/** Bare addresses as links, line breaks as such. */
function addresses(text) {
  const out = [];
  let done = 0;
  for (const match of text.matchAll(BARE)) {
    let address = match[0].replace(/[.,;:!?'"*_~]+$/, "");
    if (address.endsWith(")") && !address.includes("(")) address = address.slice(0, -1);
    out.push(...broken(text.slice(done, match.index)), anchor(address, [address]));
    done = match.index + address.length;
  }
  return [...out, ...broken(text.slice(done))];
}

function broken(text) {
  return text.split("\n").flatMap((line, index) => (index ? [document.createElement("br"), line] : [line]));
}
