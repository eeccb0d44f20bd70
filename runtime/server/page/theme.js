// The theme that was chosen here, before anything is drawn. Without a choice the page follows the system.
try {
  const chosen = localStorage.getItem("ingle.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that lets this page keep nothing: it follows the system.
}
