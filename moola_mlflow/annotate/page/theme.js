// Light or dark: what the system prefers, until the person chooses.
const KEY = "moola-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = [];

export function theme() {
  return document.documentElement.dataset.theme;
}

export function onTheme(listener) {
  listeners.push(listener);
}

export function toggleTheme() {
  localStorage.setItem(KEY, theme() === "dark" ? "light" : "dark");
  apply();
}

function apply() {
  document.documentElement.dataset.theme = localStorage.getItem(KEY) ?? (system.matches ? "dark" : "light");
  for (const listener of listeners) listener();
}

system.addEventListener("change", apply);
apply();
