// The list of conversations at the side.

import * as archive from "./archive.js";
import { isSure } from "./panels.js";
import { icon, make } from "./thread.js";

const byId = (id) => document.getElementById(id);

/** Draws the list. `current` is the id of the conversation that is shown; `acts` has open(id) and removed(id). */
export function drawShelf(current, acts) {
  const kept = archive.list();
  byId("conversations").replaceChildren(...kept.map((entry) => row(entry, current, acts)));
  byId("delete-all").disabled = byId("export-all").disabled = !kept.length;
}

function row(entry, current, acts) {
  const open = make("button", { type: "button", className: "title", textContent: entry.title, title: entry.title });
  if (entry.id === current) open.setAttribute("aria-current", "true");
  open.addEventListener("click", () => acts.open(entry.id));
  open.addEventListener("dblclick", () => rename(entry, open, acts));
  open.addEventListener("keydown", (event) => event.key === "F2" && rename(entry, open, acts));
  const act = (name, label, does) => {
    const node = make("button", { type: "button", className: "round small", "aria-label": `${label}: ${entry.title}`, title: label }, icon(name));
    node.addEventListener("click", does);
    return node;
  };
  return make(
    "li",
    {},
    open,
    act("pencil", "Rename", () => rename(entry, open, acts)),
    act("export", "Export as Markdown", () => {
      const conversation = archive.load(entry.id);
      if (conversation) download(`${fileName(entry.title)}.md`, archive.asMarkdown(conversation), "text/markdown");
    }),
    act("trash", "Delete", async () => {
      if (!(await isSure(`Delete “${entry.title}”?`))) return;
      archive.remove(entry.id);
      acts.removed(entry.id);
    }),
  );
}

function rename(entry, open, acts) {
  const field = make("input", { type: "text", className: "title", value: entry.title, "aria-label": "Title", maxLength: 200 });
  let over = false;
  const end = (keeps) => {
    if (over) return;
    over = true;
    if (keeps && field.value.trim()) acts.rename(entry.id, field.value.trim());
    acts.redraw();
  };
  field.addEventListener("blur", () => end(true));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.stopPropagation();
    if (event.key === "Enter" || event.key === "Escape") end(event.key === "Enter");
  });
  open.replaceWith(field);
  field.select();
}

/** The three buttons below the list. */
export function wireShelf(acts) {
  byId("export-all").addEventListener("click", () => {
    const all = archive.list().map((entry) => archive.load(entry.id)).filter(Boolean);
    download("ingle-conversations.json", archive.exported(all), "application/json");
  });
  byId("import").addEventListener("click", () => byId("import-file").click());
  byId("import-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) acts.imported(await file.text());
  });
  byId("delete-all").addEventListener("click", async () => {
    const all = archive.list();
    if (!(await isSure(`Delete all ${all.length} conversations?`))) return;
    for (const entry of all) {
      archive.remove(entry.id);
      acts.removed(entry.id);
    }
  });
}

function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function fileName(title) {
  return title.replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60) || "conversation";
}
