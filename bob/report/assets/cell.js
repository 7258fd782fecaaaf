// What is behind a score: its interval, its runs, their commands and the versions that they ran on.

function versionsText(environment) {
  const kept = DATA.environments[environment];
  const packages = kept.packages ?? {};
  const main = ["torch", "timm"].flatMap((name) => (packages[name] ? [`${name} ${packages[name]}`] : []));
  return [`bob ${kept.bob ?? "?"}`, kept.python ? `Python ${kept.python}` : "", ...main, kept.device ?? ""].filter(Boolean).join(", ");
}

function environmentPairs(environment) {
  const pairs = [];
  for (const [key, value] of Object.entries(DATA.environments[environment])) {
    if (key !== "packages") pairs.push([key, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  }
  return [...pairs, ...Object.entries(DATA.environments[environment].packages ?? {}).map(([name, version]) => [name, String(version)])];
}

function runBlock(run) {
  const setting = RUNS.setting[run];
  const score = `${scoreText(RUNS.score[run], setting)} (95%: ${intervalText(RUNS.low[run], RUNS.high[run], setting)})`;
  return element("div", { class: "run" },
    element("h3", {}, `Seed ${RUNS.seed[run]}`),
    factList([["Score", score], ["Samples", RUNS.n[run] === null ? "unknown" : counted(RUNS.n[run])], ["Run", RUNS.run_id[run]], ["Date", dateText(RUNS.created[run])],
      ["Versions", versionsText(RUNS.environment[run])]]),
    commandBox(run),
    lazyDetails("All versions", () => factList(environmentPairs(RUNS.environment[run]))));
}

function cellPairs(cell) {
  const setting = CELLS.setting[cell];
  const source = DATA.sources[CELLS.source[cell]];
  const direction = SETTINGS.higher[setting] ? "higher is better" : "lower is better";
  const samples = CELLS.n[cell] === null ? "unknown" : counted(CELLS.n[cell]);
  return [["Score", scoreText(CELLS.score[cell], setting)], ["95% interval", intervalText(CELLS.low[cell], CELLS.high[cell], setting)],
    ["Metric", `${SETTINGS.metric[setting]}, ${direction}`], ["Test samples", samples],
    ["Seeds", source ? "" : counted(CELLS.seeds[cell])], ["Published in", source ? linkOrText(source) : ""]];
}

// Only addresses of the web become links; anything else stays text.
function linkOrText(text) {
  return /^https?:\/\/\S+$/.test(text) ? element("a", { href: text, rel: "noreferrer noopener" }, text) : text;
}

function showCell(cell) {
  const [backbone, setting] = [CELLS.backbone[cell], CELLS.setting[cell]];
  const close = element("button", { type: "button", class: "quiet small" }, "Close");
  close.addEventListener("click", () => byId("cell").close());
  const name = element("a", { href: backboneHref(backbone) }, ...breakable(BACKBONES.name[backbone]));
  name.addEventListener("click", () => byId("cell").close());
  byId("cell").replaceChildren(
    element("div", { class: "dialog-head" },
      element("h2", { id: "cell-title" }, name, ...breakable(` on ${SETTINGS.name[setting]}`)), close),
    factList(cellPairs(cell)), ...runsOfCell(cell).map(runBlock));
  byId("cell").showModal();
  byId("cell").scrollTop = 0;
}

byId("cell").addEventListener("click", (event) => {
  if (event.target === byId("cell")) byId("cell").close(); // the backdrop
});
