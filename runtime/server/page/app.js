// The page: which conversation is shown, what is being written, and what keys and buttons do.

import * as api from "./api.js";
import * as archive from "./archive.js";
import * as pictures from "./attached.js";
import { atEnd, NARROW, notify, say, toEnd, toggleShelf, wireLook } from "./look.js";
import { askKey, askSettings, asFields } from "./panels.js";
import { drawShelf, wireShelf } from "./shelf.js";
import { fit, make, MessageView, toClipboard } from "./thread.js";
import { ending, figures, plain } from "./words.js";

const byId = (id) => document.getElementById(id);
const prompt = byId("prompt");
const SETTINGS = "ingle.settings";
const MODEL = "ingle.model";

const CUT = "The page was closed before this answer was done."; // taken back when it is

let models = [];
let conversation = null;
let writing = null; // {message, abort} while an answer arrives
let views = new Map();

// ---- models -------------------------------------------------------------------------------------------------------

async function readModels() {
  try {
    models = (await api.models()).filter((model) => model.ingle.chat !== false);
    notify("");
  } catch (error) {
    if (error.locked && (await unlock(error))) return readModels();
    models = [];
    notify(error.message);
  }
  drawModels();
}

async function unlock(error) {
  return askKey(api.key.get() ? error.message : "It is the one that ingle serve was started with.");
}

function drawModels() {
  const wanted = conversation?.model || localStorage.getItem(MODEL);
  const found = models.find((model) => model.id === wanted) ?? models.find((model) => model.ingle.loaded) ?? models[0];
  const options = models.map((model) => make("option", { value: model.id, textContent: model.id }));
  if (!options.length) options.push(make("option", { value: "", textContent: "no models here" }));
  byId("model").replaceChildren(...options);
  byId("model").value = found?.id ?? "";
  drawFacts();
}

function model() {
  return models.find((one) => one.id === byId("model").value) ?? null;
}

function drawFacts() {
  const facts = model()?.ingle;
  const words = [];
  if (facts) {
    words.push(facts.loaded ? "in memory" : "loads at the first message");
    if (facts.context_length) words.push(`window of ${facts.context_length.toLocaleString("en")} tokens`);
    if (facts.vision) words.push("sees pictures");
  }
  byId("facts").textContent = words.join(" · ");
  byId("attach").hidden = !facts?.vision;
  byId("greeting").textContent = models.length
    ? "Everything stays on this machine."
    : "There is no model here yet. In a terminal: ingle pull org/name";
}

// ---- conversations ------------------------------------------------------------------------------------------------

function kept(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function start() {
  stop();
  conversation = archive.begin(byId("model").value, kept(SETTINGS, {}));
  draw();
  prompt.focus();
}

function open(id) {
  const found = archive.load(id);
  if (!found) return notify("This conversation is not there any more.");
  stop();
  conversation = found;
  if (models.some((one) => one.id === found.model)) byId("model").value = found.model;
  drawFacts();
  draw();
  if (NARROW.matches) toggleShelf(false);
  prompt.focus();
  return undefined;
}

function keep() {
  try {
    conversation.updated = Date.now();
    archive.save(conversation);
    return true;
  } catch {
    notify(
      "The browser has no room left for this conversation: it is here until the page is closed. " +
        "Export it, or delete older ones.",
    );
    return false;
  } finally {
    redraw();
  }
}

function redraw() {
  drawShelf(conversation.id, shelfActs);
}

const shelfActs = {
  open,
  redraw,
  removed(id) {
    if (conversation.id === id) start();
    else redraw();
  },
  rename(id, title) {
    const found = id === conversation.id ? conversation : archive.load(id);
    if (!found) return;
    found.title = title;
    archive.save(found);
  },
  imported(text) {
    try {
      const count = archive.imported(text);
      notify("");
      say(`${count} conversations imported.`);
    } catch (error) {
      notify(error.name === "QuotaExceededError" ? "The browser has no room for all of these conversations." : error.message);
    }
    redraw();
  },
};

// ---- messages -----------------------------------------------------------------------------------------------------

function place(message) {
  const all = archive.siblings(conversation, message);
  return { index: all.indexOf(message), count: all.length };
}

function draw() {
  views = new Map();
  const messages = archive.path(conversation);
  for (const message of messages) views.set(message.id, new MessageView(message, place(message), acts));
  byId("thread").replaceChildren(...[...views.values()].map((view) => view.node));
  byId("welcome").hidden = messages.length > 0;
  drawWindow(messages.at(-1));
  redraw();
  toEnd();
}

function drawWindow(message) {
  const used = message?.usage ? message.usage.prompt_tokens + message.usage.completion_tokens : 0;
  const all = model()?.ingle.context_length;
  byId("window").textContent = used && all ? `${used.toLocaleString("en")} of ${all.toLocaleString("en")} tokens` : "";
}

const acts = {
  copy: async (text) => {
    await toClipboard(text);
    say("Copied.");
  },
  again(message) {
    stop();
    if (message.parent === null) return;
    answer(message.parent);
    prompt.focus();
  },
  resend(message, text) {
    stop();
    const fields = message.images ? { images: message.images } : {};
    const again = archive.add(conversation, message.parent, { role: "user", content: text, ...fields });
    answer(again.id);
    prompt.focus();
  },
  step(message, by) {
    stop();
    const all = archive.siblings(conversation, message);
    const other = all[all.indexOf(message) + by];
    archive.show(conversation, other);
    keep();
    draw();
    views.get(other.id).focusBranch(by);
  },
};

async function send() {
  const said = () => prompt.value.trim();
  if ((!said() && !pictures.count()) || writing) return;
  if (!model()) await readModels();
  const text = said(); // which another Enter may have sent meanwhile
  if ((!text && !pictures.count()) || writing || !model()) return;
  const fields = pictures.count() ? { images: pictures.take() } : {};
  const sent = archive.add(conversation, conversation.leaf, { role: "user", content: text, ...fields });
  prompt.value = "";
  fit(prompt);
  answer(sent.id);
  prompt.focus();
}

async function answer(parent) {
  conversation.model = byId("model").value;
  const body = { model: conversation.model, messages: archive.asMessages(conversation, parent), ...asFields(conversation.settings) };
  const blank = { role: "assistant", content: "", reasoning: "", model: body.model, note: CUT };
  const message = archive.add(conversation, parent, blank);
  const mine = { message, abort: new AbortController(), conversation, frame: 0 };
  notify("");
  keep();
  draw();
  begin(mine);
  try {
    for await (const chunk of api.chat(body, mine.abort.signal)) take(mine, chunk);
  } catch (error) {
    if (error.name === "AbortError") message.note = "You stopped this answer.";
    else {
      message.error = plain(error);
      mine.locked = error.locked ? error : null;
    }
  }
  finish(mine);
  if (mine.locked && (await unlock(mine.locked))) acts.again(message);
}

function begin(mine) {
  writing = mine;
  byId("send").hidden = true;
  byId("stop").hidden = false;
  views.get(mine.message.id).set(mine.message, place(mine.message), true);
  say("Answering.");
}

function take(mine, chunk) {
  const { message } = mine;
  const [choice] = chunk.choices;
  if (choice) {
    message.content += choice.delta.content ?? "";
    message.reasoning += choice.delta.reasoning_content ?? "";
    if (choice.finish_reason) message.note = ending(choice);
  }
  if (chunk.usage) {
    message.usage = chunk.usage;
    message.figures = figures(chunk.usage, chunk.ingle.timings);
  }
  mine.frame ||= requestAnimationFrame(() => {
    mine.frame = 0;
    if (writing !== mine) return;
    const follows = atEnd();
    views.get(message.id)?.set(message, place(message), true);
    if (follows) toEnd();
  });
}

function finish(mine) {
  const { message } = mine;
  if (message.note === CUT) message.note = "";
  if (writing === mine) {
    writing = null;
    byId("send").hidden = false;
    byId("stop").hidden = true;
  }
  if (mine.conversation !== conversation) return void saveElsewhere(mine.conversation);
  const follows = atEnd();
  views.get(message.id)?.set(message, place(message), false);
  if (follows) toEnd();
  drawWindow(message);
  keep();
  say(message.error || [message.content, message.note].filter(Boolean).join(" ") || "There is no answer.");
  if (!message.error && !model()?.ingle.loaded) readModels();
}

/** The answer of a conversation that was left meanwhile. It may have been deleted, and stays so. */
function saveElsewhere(other) {
  if (archive.load(other.id) === null) return;
  try {
    archive.save(other);
  } catch {
    notify("The browser has no room left for the answer that was stopped.");
  }
}

function stop() {
  if (!writing) return;
  writing.abort.abort();
  writing = null;
  byId("send").hidden = false;
  byId("stop").hidden = true;
}

// ---- settings, keys, buttons --------------------------------------------------------------------------------------

async function changeSettings() {
  const found = await askSettings(conversation.settings, model()?.ingle.sampling ?? {});
  if (found === null) return;
  conversation.settings = found;
  localStorage.setItem(SETTINGS, JSON.stringify(found));
  keep();
}

function wire() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  prompt.addEventListener("input", () => fit(prompt));
  prompt.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length && model()?.ingle.vision) {
      event.preventDefault();
      pictures.attach(files);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && writing && !document.querySelector("dialog[open]")) {
      stop();
      prompt.focus();
    }
  });
  byId("stop").addEventListener("click", () => {
    stop();
    prompt.focus();
  });
  byId("new-chat").addEventListener("click", () => {
    if (NARROW.matches) toggleShelf(false);
    start();
  });
  byId("open-settings").addEventListener("click", changeSettings);
  byId("attach").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", async (event) => {
    await pictures.attach([...event.target.files]);
    event.target.value = "";
  });
  byId("model").addEventListener("change", () => {
    localStorage.setItem(MODEL, byId("model").value);
    drawFacts();
    drawWindow(archive.path(conversation).at(-1));
  });
  byId("thread").addEventListener("click", (event) => {
    const copy = event.target.closest(".copy-code");
    if (copy) acts.copy(copy.closest(".code").querySelector("code").textContent);
  });
  addEventListener("storage", (event) => archive.isOurs(event.key) && redraw());
  addEventListener("pagehide", () => writing && keep());
  wireShelf(shelfActs);
}

wireLook();
wire();
conversation = archive.begin("", kept(SETTINGS, {}));
draw();
prompt.focus();
await readModels();
