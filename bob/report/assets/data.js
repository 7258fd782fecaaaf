// What the page knows, read once, and the small tools that every part uses.

const DATA = JSON.parse(document.getElementById("data").textContent);
const { backbones: BACKBONES, settings: SETTINGS, cells: CELLS, runs: RUNS, views: VIEWS } = DATA;
const MANY_BACKBONES = BACKBONES.name.length;
const MANY_SETTINGS = SETTINGS.name.length;
// A column of a view of which nothing is known comes as null.
for (const view of VIEWS) {
  for (const name of Object.keys(view)) view[name] ??= new Array(view.backbone.length).fill(null);
}
const NARROW = matchMedia("(max-width: 40rem)"); // as in style.css
const byId = (id) => document.getElementById(id);

// Number of the cell of each backbone in each setting, -1 where it was not run.
const CELL_AT = new Int32Array(MANY_BACKBONES * MANY_SETTINGS).fill(-1);
CELLS.backbone.forEach((backbone, cell) => { CELL_AT[backbone * MANY_SETTINGS + CELLS.setting[cell]] = cell; });

const BACKBONE_NUMBER = new Map(BACKBONES.name.map((name, number) => [name, number]));

// Numbers of the runs of each backbone, in the order of settings and seeds.
const RUNS_OF = BACKBONES.name.map(() => []);
RUNS.backbone.forEach((backbone, run) => RUNS_OF[backbone].push(run));

function cellAt(backbone, setting) {
  return CELL_AT[backbone * MANY_SETTINGS + setting];
}

function runsOfCell(cell) {
  return RUNS_OF[CELLS.backbone[cell]].filter((run) => RUNS.setting[run] === CELLS.setting[cell]);
}

function commandOf(run) {
  return DATA.commands[RUNS.command[run]].split("\u0000").join(DATA.quoted[RUNS.backbone[run]]);
}

// An element with attributes and children; text is always text, never markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svgElement(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// How many digits after the point tell the scores of each setting apart.
const DIGITS = new Int8Array(MANY_SETTINGS).fill(3);
CELLS.score.forEach((score, cell) => {
  const digits = Math.abs(score) > 20 ? 1 : Math.abs(score) > 2 ? 2 : 3;
  DIGITS[CELLS.setting[cell]] = Math.min(DIGITS[CELLS.setting[cell]], digits);
});

const MINUS = "\u2212";
const fixed = (value, digits) => value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", MINUS);
const signed = (value, digits) => (Number(value.toFixed(digits)) > 0 ? "+" : "") + fixed(value, digits);
const counted = (value) => value.toLocaleString("en-GB");
const scoreText = (value, setting) => fixed(value, DIGITS[setting]);
const intervalText = (low, high, setting) =>
  low === null || high === null ? "no interval" : `${scoreText(low, setting)} to ${scoreText(high, setting)}`;
const plural = (count, one, many = one + "s") => `${counted(count)} ${count === 1 ? one : many}`;
const dateText = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ") + " UTC";
const backboneHref = (number) => "#backbone=" + encodeURIComponent(BACKBONES.name[number]);

function millions(count) {
  if (count === null) return "unknown";
  return count < 1e5 ? counted(count) : fixed(count / 1e6, count < 1e8 ? 1 : 0) + " M";
}

function paradigmMark(backbone) {
  const paradigm = DATA.paradigms[BACKBONES.paradigm[backbone]];
  const dot = element("span", { class: "dot", "aria-hidden": "true" });
  if (paradigm.colour) dot.style.setProperty("--dot", paradigm.colour);
  const detail = [paradigm.label, DATA.words[BACKBONES.architecture[backbone]]].filter(Boolean).join(" \u00b7 ");
  return element("span", { class: "kind" }, dot, element("span", {}, detail));
}

// A name that may be broken after its separators.
function breakable(name) {
  return name.match(/[^_./:@-]*[_./:@-]|[^_./:@-]+$/g).flatMap((part, place) => (place ? [element("wbr"), part] : [part]));
}

// A definition list of [term, text or node] pairs.
function factList(pairs) {
  const list = element("dl", { class: "facts" });
  for (const [term, value] of pairs) {
    if (value !== "" && value !== null) list.append(element("dt", {}, term), element("dd", {}, value));
  }
  return list;
}

// A plain table of rows; columns in `numeric` are set flush right.
function dataTable(caption, columns, rows, numeric = []) {
  const align = (position) => ({ class: numeric.includes(position) ? "number" : null });
  const head = element("tr", {}, ...columns.map((name, i) => element("th", { scope: "col", ...align(i) }, name)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell, i) => element("td", align(i), cell))));
  const table = element("table", { class: "data-table" }, element("caption", { class: "visually-hidden" }, caption),
    element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption }, table);
}

// A <details> whose content is made when it is first opened.
function lazyDetails(summary, make) {
  const details = element("details", {}, element("summary", {}, summary));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(make());
  });
  return details;
}

async function copyText(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyBySelection(text, button.parentElement);
  }
  const label = button.textContent;
  button.textContent = done ? "Copied" : "Not allowed here";
  setTimeout(() => { button.textContent = label; }, 1500);
}

// For browsers that keep the clipboard from pages opened from disk.
function copyBySelection(text, place) {
  const area = element("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  area.value = text;
  place.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function copyButton(text, label = "Copy") {
  const button = element("button", { type: "button", class: "quiet small", "aria-live": "polite" }, label);
  button.addEventListener("click", () => { if (button.textContent === label) copyText(text(), button); });
  return button;
}

function commandBox(run) {
  const command = commandOf(run);
  return element("div", { class: "command" }, element("code", {}, command), copyButton(() => command));
}
