// The pictures that go with the next message.

import { notify, say } from "./look.js";
import { icon, make } from "./thread.js";

const SEEN = ["image/png", "image/jpeg", "image/webp"];
const list = document.getElementById("attached");
const prompt = document.getElementById("prompt");
let images = [];

/** Adds files; what is no picture that the server reads is named and left out. */
export async function attach(files) {
  for (const file of files) {
    if (!SEEN.includes(file.type)) notify(`${file.name || "This"} is no PNG, JPEG or WebP.`);
    else images.push({ name: file.name || "picture", url: await asUrl(file) });
  }
  draw();
  say(`${images.length} pictures attached.`);
  prompt.focus();
}

export function count() {
  return images.length;
}

/** Hands the pictures over to a message. */
export function take() {
  const taken = images;
  images = [];
  draw();
  return taken;
}

function asUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

function draw() {
  list.replaceChildren(...images.map(row));
  list.hidden = !images.length;
}

function row(image) {
  const label = `Remove ${image.name}`;
  const remove = make("button", { type: "button", className: "round small", "aria-label": label, title: "Remove" }, icon("close"));
  remove.addEventListener("click", () => {
    images = images.filter((other) => other !== image);
    draw();
    prompt.focus();
  });
  return make("li", {}, make("img", { src: image.url, alt: image.name }), remove);
}
