// The main table: a view of settings, filtered and sorted as asked; only a window of its rows is in the document.

const WINDOW = 50;
const SETTINGS_AT_ONCE = 5;
const state = { view: 0, sort: "rank", direction: 1, rows: WINDOW, page: 0, text: "", largest: Infinity, paradigms: new Set() };

const SEARCHED = BACKBONES.name.map((name, number) =>
  [name, DATA.words[BACKBONES.method[number]], DATA.words[BACKBONES.architecture[number]]].join(" ").toLowerCase());

// Of many settings, the categories come first.
function pagedColumns(view) {
  const many = view.kind === "overall" && view.settings.length > SETTINGS_AT_ONCE;
  const categories = many ? VIEWS.filter((other) => other.kind === "category") : [];
  const shown = categories.length > 1 ? categories.map((other) => () => categoryColumn(other)) : [];
  return [...shown, ...view.settings.map((setting) => () => settingColumn(setting))];
}

function aggregateNames(view) {
  if (view.settings.length === 1) return [];
  const second = DATA.policy.by === "mean_z" ? ["mean_z", "win_rate"] : [DATA.policy.by, "mean_z"];
  return second.filter((name) => view[name].some((value) => value !== null));
}

let columnsMade = { key: null, found: null };

// Made once for each view and page: the axes of columns take a look at every backbone.
function currentColumns() {
  const key = `${state.view} ${state.page}`;
  if (columnsMade.key !== key) columnsMade = { key, found: makeColumns(VIEWS[state.view]) };
  return columnsMade.found;
}

function makeColumns(view) {
  const paged = pagedColumns(view);
  const first = state.page * SETTINGS_AT_ONCE;
  return {
    paged: paged.length,
    columns: [backboneColumn(), rankColumn(view), ...aggregateNames(view).map((name) => aggregateColumn(view, name)),
      parametersColumn(), ...paged.slice(first, first + SETTINGS_AT_ONCE).map((make) => make())],
  };
}

function passes(backbone) {
  const parameters = BACKBONES.parameters[backbone];
  return state.paradigms.has(BACKBONES.paradigm[backbone])
    && (state.largest === Infinity || (parameters !== null && parameters <= state.largest))
    && SEARCHED[backbone].includes(state.text);
}

// The backbones to show, sorted; those without a value come last whichever way the rest is sorted.
function shownBackbones(column) {
  const view = VIEWS[state.view];
  const kept = view.backbone.filter((backbone) =>
    passes(backbone) && view.settings.some((setting) => cellAt(backbone, setting) >= 0));
  const keys = new Map(kept.map((backbone) => [backbone, column.value(backbone)]));
  const place = rowsOf(view);
  const text = column.key === "backbone" ? new Intl.Collator("en", { numeric: true }) : null;
  return kept.sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    if (x === null || y === null) return (x === null) - (y === null) || place[a] - place[b];
    const order = text ? text.compare(x, y) : x - y;
    return order * state.direction || place[a] - place[b];
  });
}

function headerCell(column) {
  const sorted = column.key === state.sort;
  const arrow = element("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (state.direction > 0 ? "\u2191" : "\u2193") : "");
  const button = element("button", { type: "button", class: "sort", "data-sort": column.key }, column.label, arrow,
    column.sub ? element("span", { class: "sub" }, column.sub) : null);
  const order = sorted ? (state.direction > 0 ? "ascending" : "descending") : "none";
  return element("th", { scope: "col", class: column.numeric ? "number" : null, "aria-sort": order }, button);
}

function bodyRow(columns, backbone, band, starts) {
  const names = [band ? "band" : "", starts ? "group-start" : ""].filter(Boolean).join(" ");
  return element("tr", { class: names || null }, ...columns.map((column) =>
    column.header ? element("th", { scope: "row" }, column.render(backbone))
      : element("td", { class: [column.numeric && "number", column.kind].filter(Boolean).join(" ") || null }, column.render(backbone))));
}

// Neighbours of one tied group share a shade, which changes with the group.
function bodyRows(columns, backbones) {
  const view = VIEWS[state.view];
  const group = inView(view, "group");
  const grouped = state.sort === "rank" && view.group.some((value) => value !== null);
  let band = true;
  return backbones.map((backbone, position) => {
    const starts = grouped && (position === 0 || group(backbone) !== group(backbones[position - 1]));
    if (starts) band = !band;
    return bodyRow(columns, backbone, grouped && band, starts && position > 0);
  });
}

function drawPager(paged) {
  const pages = Math.ceil(paged / SETTINGS_AT_ONCE);
  byId("pager").hidden = pages < 2;
  byId("earlier").disabled = state.page === 0;
  byId("later").disabled = state.page >= pages - 1;
  const first = state.page * SETTINGS_AT_ONCE;
  byId("page").textContent = `Columns ${first + 1} to ${Math.min(first + SETTINGS_AT_ONCE, paged)} of ${paged}`;
}

function statusText(kept, shown, view) {
  if (!kept) return "No backbone passes these filters.";
  const count = `${counted(kept)} of ${plural(view.backbone.length, "backbone")}`;
  return [shown < kept ? `${count}, the first ${counted(shown)} shown.` : `${count}.`, view.note].filter(Boolean).join(" ");
}

function drawTable() {
  const view = VIEWS[state.view];
  const { columns, paged } = currentColumns();
  let sorting = columns.find((column) => column.key === state.sort);
  if (!sorting) {
    sorting = columns[1];
    Object.assign(state, { sort: "rank", direction: 1 });
  }
  const kept = shownBackbones(sorting);
  const shown = kept.slice(0, state.rows);
  const [head, body] = [byId("table").tHead, byId("table").tBodies[0]];
  const focused = document.activeElement?.dataset?.sort;
  head.replaceChildren(element("tr", {}, ...columns.map(headerCell)));
  body.replaceChildren(...bodyRows(columns, shown));
  // The header was made anew; the keyboard stays where it was.
  if (focused) [...head.querySelectorAll("button")].find((button) => button.dataset.sort === focused)?.focus();
  byId("caption").textContent = `${view.title}, sorted by ${sorting.label}`;
  byId("status").textContent = statusText(kept.length, shown.length, view);
  byId("more").hidden = shown.length === kept.length;
  byId("more").textContent = `Show ${Math.min(WINDOW, kept.length - shown.length)} more`;
  drawPager(paged);
}

function sortBy(key) {
  const column = currentColumns().columns.find((candidate) => candidate.key === key);
  state.direction = state.sort === key ? -state.direction : column.natural;
  state.sort = key;
  state.rows = WINDOW;
  drawTable();
}

function setUpControls() {
  const groups = { overall: "Overall", category: "Category", task: "Task", setting: "Single setting" };
  for (const [kind, label] of Object.entries(groups)) {
    const options = VIEWS.flatMap((view, number) => (view.kind === kind ? [element("option", { value: number }, view.label)] : []));
    if (options.length) byId("view").append(element("optgroup", { label }, ...options));
  }
  DATA.paradigms.forEach((paradigm, number) => {
    const dot = element("span", { class: "dot", "aria-hidden": "true" });
    if (paradigm.colour) dot.style.setProperty("--dot", paradigm.colour);
    const box = element("input", { type: "checkbox", value: number, checked: true });
    byId("paradigms").append(element("label", { class: "check" }, box, dot, `${paradigm.label} (${counted(paradigm.count)})`));
  });
}

function readControls() {
  const size = parseFloat(byId("size").value);
  const view = Number(byId("view").value);
  if (view !== state.view) state.page = 0;
  const boxes = [...byId("paradigms").querySelectorAll("input:checked")];
  Object.assign(state, {
    view, rows: WINDOW, text: byId("search").value.trim().toLowerCase(),
    largest: Number.isNaN(size) ? Infinity : size * 1e6, paradigms: new Set(boxes.map((box) => Number(box.value))),
  });
  drawTable();
}

function turnPage(step) {
  state.page += step;
  drawTable();
}

function startTable() {
  setUpControls();
  byId("controls").addEventListener("input", readControls);
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("reset", () => setTimeout(readControls)); // the fields are empty only afterwards
  byId("earlier").addEventListener("click", () => turnPage(-1));
  byId("later").addEventListener("click", () => turnPage(1));
  byId("more").addEventListener("click", () => { state.rows += WINDOW; drawTable(); });
  byId("table").addEventListener("click", (event) => {
    const sort = event.target.closest("[data-sort]");
    const cell = event.target.closest("[data-cell]");
    if (sort) sortBy(sort.dataset.sort);
    if (cell) showCell(Number(cell.dataset.cell));
  });
  readControls();
}
