// Which page is shown, by the address after #; and what every cell was made with.

const PAGE_TITLE = document.title;
let overviewScroll = 0;

function backboneAsked() {
  const asked = /^#backbone=(.*)$/s.exec(location.hash);
  if (!asked) return null;
  try {
    return decodeURIComponent(asked[1]);
  } catch {
    return asked[1];
  }
}

function showBackbone(name) {
  if (!byId("overview").hidden) overviewScroll = scrollY;
  const heading = drawBackbone(name);
  byId("overview").hidden = true;
  byId("backbone").hidden = false;
  document.title = `${name} \u2013 ${PAGE_TITLE}`;
  scrollTo({ top: 0, behavior: "instant" });
  heading.focus({ preventScroll: true });
}

function showOverview(wasHidden) {
  byId("backbone").hidden = true;
  byId("overview").hidden = false;
  document.title = PAGE_TITLE;
  if (!wasHidden) return;
  const section = location.hash.length > 1 ? byId(location.hash.slice(1)) : null;
  if (section) {
    section.scrollIntoView({ behavior: "instant" });
    section.querySelector("h2")?.focus({ preventScroll: true });
  } else {
    scrollTo({ top: overviewScroll, behavior: "instant" });
  }
}

function route() {
  if (byId("cell").open) byId("cell").close();
  const name = backboneAsked();
  if (name === null) showOverview(byId("overview").hidden);
  else showBackbone(name);
}

function environmentTitle(environment, count) {
  return `Environment ${environment + 1}: ${versionsText(environment)} (${plural(count, "run")})`;
}

function allCommands() {
  const text = RUNS.backbone.map((_, run) => commandOf(run)).join("\n");
  const few = text.length < 200000 ? text : text.slice(0, text.lastIndexOf("\n", 200000)) + "\n\u2026";
  const cut = few === text ? null : element("p", { class: "muted" }, "Only the first are shown; Copy all copies every one.");
  return element("div", {}, element("p", {}, copyButton(() => text, "Copy all")), cut,
    element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "All commands" }, element("pre", {}, few)));
}

function drawMade() {
  const counts = DATA.environments.map(() => 0);
  RUNS.environment.forEach((environment) => { counts[environment] += 1; });
  const parts = [];
  if (counts.length) {
    parts.push(element("h3", {}, "Versions"), ...counts.map((count, environment) =>
      lazyDetails(environmentTitle(environment, count), () => factList(environmentPairs(environment)))));
    parts.push(element("h3", {}, "Commands"),
      element("p", {}, "Every run is made again by its command; a run whose record is present is not repeated."),
      lazyDetails(`All ${plural(RUNS.backbone.length, "command")}`, allCommands));
  }
  const sources = DATA.sources.filter(Boolean);
  if (sources.length) {
    parts.push(element("h3", {}, "Published sources"), element("ul", {}, ...sources.map((source) => element("li", {}, linkOrText(source)))));
  }
  byId("made").replaceChildren(...parts);
}

startTable();
addEventListener("load", startCharts); // the library that draws them comes last
drawMade();
// The address after # says which page is shown, so this link must not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("content").focus();
});
addEventListener("hashchange", route);
route();
