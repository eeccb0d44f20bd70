// What is said and shown around a conversation: notices, the shelf at the side, the theme.

const byId = (id) => document.getElementById(id);
const scroll = byId("scroll");
const THEMES = { "": "as the system", light: "light", dark: "dark" };

export const NARROW = matchMedia("(max-width: 50rem)");

/** For a screen reader: said when it has nothing else to say. */
export function say(text) {
  byId("live").textContent = text;
}

/** For everybody, at once: what went wrong. */
export function notify(text) {
  byId("notice").textContent = text;
}

export function atEnd() {
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
}

export function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
}

export function toggleShelf(wanted) {
  const shown = wanted ?? document.body.classList.contains("no-shelf");
  document.body.classList.toggle("no-shelf", !shown);
  byId("toggle-shelf").setAttribute("aria-expanded", String(shown));
}

export function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  const label = `Theme: ${THEMES[theme]}`;
  byId("theme").setAttribute("aria-label", label);
  byId("theme").title = label;
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const theme = names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length];
  localStorage.setItem("ingle.theme", theme);
  setTheme(theme);
  say(`Theme: ${THEMES[theme]}`);
}

export function wireLook() {
  setTheme(document.documentElement.dataset.theme ?? "");
  toggleShelf(!NARROW.matches);
  byId("theme").addEventListener("click", nextTheme);
  byId("toggle-shelf").addEventListener("click", () => toggleShelf());
  byId("shade").addEventListener("click", () => toggleShelf(false));
  byId("latest").addEventListener("click", () => scroll.scrollTo({ top: scroll.scrollHeight }));
  scroll.addEventListener("scroll", () => (byId("latest").hidden = atEnd()), { passive: true });
}
