// Conversations, kept in this browser's localStorage and nowhere else. A conversation is a tree of messages: an edited
// message or another answer is a new branch beside the old one, so nothing that was written is lost.

const WHOLE = "ingle.chat.";
const ENTRY = "ingle.entry."; // title and time alone, so that the list needs not read every conversation
const FORMAT = 1;
const TITLE_LENGTH = 60;

export function begin(model, settings) {
  const now = Date.now();
  return { id: unique(), title: "", created: now, updated: now, model, settings: { ...settings }, leaf: null, messages: {} };
}

/** The messages from the first one to the one that is shown last. */
export function path(conversation) {
  const found = [];
  let message = conversation.messages[conversation.leaf];
  while (message) {
    found.unshift(message);
    message = conversation.messages[message.parent];
  }
  return found;
}

/** Adds a message below `parent` (null: at the beginning), and shows it. */
export function add(conversation, parent, message) {
  const added = { id: unique(), parent, ...message };
  conversation.messages[added.id] = added;
  conversation.leaf = added.id;
  if (!conversation.title && added.role === "user") conversation.title = titleOf(added);
  return added;
}

/** The messages that stand at the same place, oldest first. */
export function siblings(conversation, message) {
  return Object.values(conversation.messages).filter((other) => other.parent === message.parent);
}

/** Shows `message` and what came after it last. */
export function show(conversation, message) {
  let last = message;
  for (;;) {
    const children = Object.values(conversation.messages).filter((other) => other.parent === last.id);
    if (!children.length) break;
    last = children.at(-1);
  }
  conversation.leaf = last.id;
}

/** The conversation up to a message, as the API takes it. */
export function asMessages(conversation, last) {
  const found = conversation.settings.system ? [{ role: "system", content: conversation.settings.system }] : [];
  for (const message of path({ ...conversation, leaf: last })) {
    if (message.role === "assistant" && !message.content) continue; // it failed, or was stopped before its first word
    const shown = (message.images ?? []).map((image) => ({ type: "image_url", image_url: { url: image.url } }));
    const text = message.content ? [{ type: "text", text: message.content }] : [];
    const content = shown.length ? [...shown, ...text] : message.content;
    const thought = message.reasoning ? { reasoning_content: message.reasoning } : {};
    found.push({ role: message.role, content, ...thought });
  }
  return found;
}

/** The newest conversations first: [{id, title, updated}]. */
export function list() {
  const found = [];
  for (let index = 0; index < localStorage.length; index += 1) {
    const name = localStorage.key(index);
    const entry = name.startsWith(ENTRY) && parsed(localStorage.getItem(name));
    if (entry) found.push({ id: name.slice(ENTRY.length), ...entry });
  }
  return found.sort((one, other) => other.updated - one.updated);
}

export function load(id) {
  return parsed(localStorage.getItem(WHOLE + id));
}

/** Throws (QuotaExceededError) when the browser has no room; what was kept before then stays as it was. */
export function save(conversation) {
  if (!Object.keys(conversation.messages).length) return;
  localStorage.setItem(WHOLE + conversation.id, JSON.stringify(conversation));
  localStorage.setItem(ENTRY + conversation.id, JSON.stringify({ title: conversation.title, updated: conversation.updated }));
}

export function remove(id) {
  localStorage.removeItem(ENTRY + id);
  localStorage.removeItem(WHOLE + id);
}

export function isOurs(name) {
  return name === null || name.startsWith(ENTRY);
}

/** Conversations as the text of a file. */
export function exported(conversations) {
  return JSON.stringify({ ingle: FORMAT, conversations }, null, 2);
}

/** Keeps the conversations of such a file beside those that are here. Returns how many; throws what is wrong with it. */
export function imported(text) {
  const file = parsed(text);
  if (file?.ingle !== FORMAT || !Array.isArray(file.conversations)) throw new Error("This is no export of ingle.");
  file.conversations.forEach((one, index) => {
    if (!isConversation(one)) throw new Error(`Conversation ${index + 1} of this file is damaged; nothing was imported.`);
  });
  for (const one of file.conversations) save({ ...one, id: localStorage.getItem(WHOLE + one.id) === null ? one.id : unique() });
  return file.conversations.length;
}

/** One conversation as Markdown, as it is shown. */
export function asMarkdown(conversation) {
  const parts = path(conversation).map((message) => {
    const pictures = (message.images ?? []).map((image) => `*(picture: ${image.name})*\n\n`).join("");
    return `## ${message.role === "user" ? "You" : message.model ?? "Assistant"}\n\n${pictures}${message.content}\n`;
  });
  return `# ${conversation.title}\n\n${parts.join("\n")}`;
}

function isConversation(one) {
  const messages = one && typeof one.messages === "object" && one.messages !== null ? Object.entries(one.messages) : null;
  if (!messages || typeof one.id !== "string" || typeof one.title !== "string" || !Number.isFinite(one.updated)) return false;
  const known = (id) => id === null || Object.hasOwn(one.messages, id);
  const fine = ([id, message]) =>
    message?.id === id && ["user", "assistant"].includes(message.role) && typeof message.content === "string" &&
    known(message.parent) && (message.images ?? []).every((image) => /^data:image\/(png|jpeg|webp);base64,/.test(image?.url));
  return messages.every(fine) && known(one.leaf) && !loops(one.messages);
}

/** Whether a message is its own ancestor: a path through it would never end. */
function loops(messages) {
  return Object.values(messages).some((message) => {
    const seen = new Set();
    for (let at = message; at; at = messages[at.parent]) {
      if (seen.has(at.id)) return true;
      seen.add(at.id);
    }
    return false;
  });
}

function titleOf(message) {
  const line = message.content.trim().split("\n")[0] || message.images?.[0]?.name || "Untitled";
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH - 1)}…` : line;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function unique() {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return `c${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
