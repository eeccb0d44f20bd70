// The dialogs: settings, the key of a locked server, and the question before something is deleted.

import { key } from "./api.js";

const byId = (id) => document.getElementById(id);
const FIELDS = ["system", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed", "reasoning_effort"];
const TEXTS = new Set(["system", "reasoning_effort"]);

/** Settings as fields of a request; the system prompt is a message, and none of them. */
export function asFields(settings) {
  const { system, ...fields } = settings;
  return fields;
}

/** Asks for settings; `own` are the model's, shown where nothing is set. Returns the new ones, or null for no change. */
export async function askSettings(settings, own) {
  for (const name of FIELDS) {
    const field = byId(name);
    field.value = settings[name] ?? "";
    if (name in own) field.placeholder = `${own[name]} (model’s own)`;
    else if (["temperature", "top_p", "top_k", "min_p"].includes(name)) field.placeholder = "model’s own";
  }
  const chosen = await asked(byId("settings"));
  if (chosen === "reset") return {};
  if (chosen !== "save") return null;
  const found = {};
  for (const name of FIELDS) {
    const text = TEXTS.has(name) ? byId(name).value.trim() : byId(name).value;
    if (text === "") continue;
    found[name] = TEXTS.has(name) ? text : Number(text);
  }
  return found;
}

/** Asks for the server's key; true when one was given. */
export async function askKey(reason) {
  byId("locked-reason").textContent = reason;
  byId("key").value = "";
  if ((await asked(byId("locked"))) !== "save") return false;
  key.set(byId("key").value.trim(), byId("remember").checked);
  return true;
}

export async function isSure(question) {
  byId("sure-title").textContent = question;
  return (await asked(byId("sure"))) === "delete";
}

function asked(dialog) {
  dialog.returnValue = "";
  for (const button of dialog.querySelectorAll("[data-close]")) button.onclick = () => dialog.close(button.dataset.close);
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}
