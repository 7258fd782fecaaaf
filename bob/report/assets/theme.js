// Light and dark: the system's choice until the button is pressed, which holds for as long as the page is open.

const themeListeners = [];
const systemDark = matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = null;

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
  themeListeners.forEach((listener) => listener());
}

const wantedTheme = () => chosenTheme ?? (systemDark.matches ? "dark" : "light");

byId("theme").addEventListener("click", () => {
  chosenTheme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  applyTheme(chosenTheme);
});
systemDark.addEventListener("change", () => applyTheme(wantedTheme()));
addEventListener("beforeprint", () => applyTheme("light")); // paper is white
addEventListener("afterprint", () => applyTheme(wantedTheme()));
applyTheme(wantedTheme());
