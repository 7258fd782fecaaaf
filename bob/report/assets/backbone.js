// The page of one backbone: its card, its contact sheet, its standing and its records.

function standingTable(backbone) {
  const rows = VIEWS.filter((view) => view.kind !== "setting" && rowsOf(view)[backbone] >= 0).map((view) => {
    const of = (name) => inView(view, name)(backbone);
    const ran = `${counted(of("settings_run"))} of ${counted(view.settings.length)}`;
    if (of("rank") === null) return [view.title, "incomplete", "", "", "", ran];
    const interval = of("rank_low") === null ? "unknown" : `${of("rank_low")} to ${of("rank_high")}`;
    return [view.title, `${of("rank")} of ${view.ranked}`, interval, of("group") === null ? "" : String(of("group")),
      of("mean_z") === null ? "" : signed(of("mean_z"), 2), ran];
  });
  return dataTable(`Standing of ${BACKBONES.name[backbone]}`, ["View", "Rank", "95% interval", "Tied group", "Mean z", "Settings"], rows, [1, 2, 3, 4, 5]);
}

function madeBy(run) {
  const note = DATA.words[RUNS.notes[run]];
  const made = element("div", { class: "made" }, commandBox(run),
    element("p", {}, `Run ${RUNS.run_id[run]}, with ${versionsText(RUNS.environment[run])}.`), note ? element("p", {}, `Notes: ${note}`) : null);
  return element("details", { open: !NARROW.matches }, element("summary", {}, "Command"), made);
}

function recordRow(run) {
  const setting = RUNS.setting[run];
  return [SETTINGS.name[setting], String(RUNS.seed[run]), scoreText(RUNS.score[run], setting),
    intervalText(RUNS.low[run], RUNS.high[run], setting), RUNS.n[run] === null ? "" : counted(RUNS.n[run]), SETTINGS.metric[setting],
    element("span", { class: "date" }, dateText(RUNS.created[run]).slice(0, 10)), madeBy(run)];
}

function publishedRow(cell) {
  const setting = CELLS.setting[cell];
  return [SETTINGS.name[setting], scoreText(CELLS.score[cell], setting), intervalText(CELLS.low[cell], CELLS.high[cell], setting),
    SETTINGS.metric[setting], linkOrText(DATA.sources[CELLS.source[cell]])];
}

function recordParts(backbone) {
  const name = BACKBONES.name[backbone];
  const parts = [];
  if (RUNS_OF[backbone].length) {
    parts.push(element("h3", {}, "Records"), dataTable(`Records of ${name}`,
      ["Setting", "Seed", "Score", "95% interval", "Samples", "Metric", "Date", "How it was made"],
      RUNS_OF[backbone].map(recordRow), [1, 2, 3, 4]));
  }
  const published = SETTINGS.name.map((_, setting) => cellAt(backbone, setting))
    .filter((cell) => cell >= 0 && DATA.sources[CELLS.source[cell]]);
  if (published.length) {
    parts.push(element("h3", {}, "Published scores"), dataTable(`Published scores of ${name}`,
      ["Setting", "Score", "95% interval", "Metric", "Source"], published.map(publishedRow), [1, 2]));
  }
  return parts;
}

function cardPart(backbone) {
  const card = DATA.cards[backbone];
  const part = element("div", {}, element("h3", {}, "Card"));
  if (!card) {
    part.append(element("p", { class: "muted" }, "Known from a published table only; there is no card."));
    return part;
  }
  part.append(factList(card.fields));
  if (card.references.length) {
    part.append(element("h4", {}, "Published"), element("ul", {}, ...card.references.map(([what, source]) =>
      element("li", {}, what, source ? " (" : "", source ? linkOrText(source) : "", source ? ")" : ""))));
  }
  if (card.facts.length) {
    part.append(element("h4", {}, "Facts from"), element("ul", {}, ...card.facts.map((fact) => element("li", {}, linkOrText(fact)))));
  }
  return part;
}

function sheetPart(backbone) {
  const name = BACKBONES.name[backbone];
  const sheet = DATA.sheets[backbone];
  const part = element("div", {}, element("h3", {}, "What it sees"));
  if (sheet) {
    part.append(element("img", { class: "sheet", src: sheet, loading: "lazy",
      alt: `Contact sheet of ${name}: test images whole, as cropped, and as the normalised input of the network.` }));
  } else {
    part.append(element("p", { class: "muted" }, "There is no contact sheet. ", element("code", {}, `bob check ${DATA.quoted[backbone]}`), " makes one."));
  }
  return part;
}

function drawBackbone(name) {
  const place = byId("backbone");
  const back = element("a", { class: "back", href: "#standings" }, "\u2190 All backbones");
  const number = BACKBONE_NUMBER.get(name);
  const heading = element("h2", { tabindex: "-1" }, number === undefined ? "No such backbone" : name);
  if (number === undefined) {
    place.replaceChildren(back, heading, element("p", {}, `This report has no backbone called \u201c${name}\u201d.`));
  } else {
    place.replaceChildren(back, heading, element("p", {}, paradigmMark(number)),
      element("h3", {}, "Standing"), standingTable(number), ...recordParts(number),
      element("div", { class: "two" }, cardPart(number), DATA.cards[number] ? sheetPart(number) : null));
  }
  return heading;
}
