// The messages of a conversation, as they are shown. What a person does with one is told to `acts`.

import { Shown } from "./markdown.js";

/** An element with properties, and children that are elements or texts. Properties with a dash are attributes. */
export function make(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.includes("-") || key === "role" || key === "for") node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children);
  return node;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

function button(name, label, act) {
  const node = make("button", { type: "button", className: "round small", title: label, "aria-label": label }, icon(name));
  node.addEventListener("click", act);
  return node;
}

/** One message. `set` may be called again and again while it is being written. */
export class MessageView {
  constructor(message, place, acts) {
    this.acts = acts;
    const name = message.role === "user" ? "You" : message.model || "Assistant";
    const title = `title-${message.id}`;
    this.body = make("div", { className: "body" });
    this.shown = message.role === "assistant" ? new Shown(this.body) : null;
    this.note = make("p", { className: "note", hidden: true });
    this.foot = make("div", { className: "message-foot" });
    this.article = make(
      "article",
      { className: `message ${message.role}`, "aria-labelledby": title },
      make("h2", { id: title, className: message.role === "user" ? "hidden" : "speaker", textContent: name }),
    );
    if (message.images?.length) this.article.append(pictures(message.images));
    this.article.append(this.body, this.note, this.foot);
    this.node = make("li", {}, this.article);
    this.set(message, place, false);
  }

  set(message, place, writing) {
    this.article.classList.toggle("writing", writing);
    this.article.setAttribute("aria-busy", String(writing));
    this._think(message, writing);
    if (this.shown) this.shown.set(message.content);
    else this.body.textContent = message.content;
    this.body.hidden = !message.content && !(writing && !message.reasoning);
    this.note.hidden = writing || (!message.note && !message.error);
    this.note.textContent = message.error || message.note || "";
    this.note.classList.toggle("wrong", Boolean(message.error));
    if (!writing) this.foot.replaceChildren(...this._foot(message, place));
    else this.foot.replaceChildren();
  }

  /** A field in the place of a message of yours, to be sent again in other words. */
  edit(message) {
    const field = make("textarea", { className: "edit", value: message.content, "aria-label": "Edit your message", rows: 1 });
    const send = make("button", { type: "button", className: "strong", textContent: "Send again" });
    const cancel = make("button", { type: "button", className: "plain", textContent: "Cancel" });
    const ends = make("div", { className: "ends" }, cancel, send);
    const close = () => {
      field.remove();
      ends.remove();
      this.body.hidden = this.foot.hidden = false;
      this.foot.querySelector("button")?.focus();
    };
    const done = () => {
      const text = field.value.trim();
      if (!text && !message.images?.length) return;
      close();
      this.acts.resend(message, text);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        done();
      } else if (event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        close();
      }
    });
    field.addEventListener("input", () => fit(field));
    send.addEventListener("click", done);
    cancel.addEventListener("click", close);
    this.body.hidden = this.foot.hidden = true;
    this.body.after(field, ends);
    fit(field);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  /** After a step to another branch: the button for one more, or back. */
  focusBranch(by) {
    const [left, right] = this.foot.querySelectorAll(".branches button");
    const wanted = by < 0 ? left : right;
    (wanted.disabled ? this.foot.querySelector(".branches button:enabled") : wanted).focus();
  }

  _think(message, writing) {
    if (!message.reasoning) {
      this.details?.remove();
      this.details = null;
      return;
    }
    if (!this.details) {
      this.summary = make("summary");
      const inner = make("div", { className: "thought" });
      this.thought = new Shown(inner);
      this.details = make("details", { className: "reasoning" }, this.summary, inner);
      this.body.before(this.details);
    }
    const still = writing && !message.content;
    this.details.classList.toggle("writing", still);
    this.summary.textContent = still ? "Reasoning…" : "Reasoning";
    this.thought.set(message.reasoning);
  }

  _foot(message, place) {
    const found = [];
    if (place.count > 1) found.push(this._branches(message, place));
    if (message.role === "user") found.push(button("pencil", "Edit", () => this.edit(message)));
    else found.push(button("again", "Another answer", () => this.acts.again(message)));
    if (message.content) found.push(button("copy", "Copy", () => this.acts.copy(message.content)));
    if (message.figures) found.push(make("span", { className: "figures", textContent: message.figures }));
    return found;
  }

  _branches(message, place) {
    const left = button("left", "The one before", () => this.acts.step(message, -1));
    const right = button("right", "The one after", () => this.acts.step(message, 1));
    left.disabled = place.index === 0;
    right.disabled = place.index === place.count - 1;
    const count = make("span", { textContent: `${place.index + 1} / ${place.count}`, "aria-label": `Version ${place.index + 1} of ${place.count}` });
    return make("span", { className: "branches" }, left, count, right);
  }
}

function pictures(images) {
  const shown = images.map((image) => make("img", { src: image.url, alt: image.name, loading: "lazy" }));
  return make("div", { className: "pictures" }, ...shown);
}

/** Browsers give pages the clipboard on localhost and over https; elsewhere the older way is left. */
export async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = make("textarea", { value: text, className: "hidden" });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  return undefined;
}

/** A field as high as its text, up to what the style sheet allows. */
export function fit(field) {
  field.rows = 1;
  const line = Number.parseFloat(getComputedStyle(field).lineHeight);
  const padding = field.offsetHeight - line;
  field.rows = Math.max(1, Math.min(12, Math.round((field.scrollHeight - Math.max(padding, 0)) / line)));
}
