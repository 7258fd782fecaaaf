// The columns of the main table: what each is called, what it is sorted by, and how a cell of it looks.

const BAR_WIDTH = 72;
const BAR_HEIGHT = 14;

// A dot and a line on the axis `domain` = [left, right].
function intervalBar(value, low, high, domain) {
  const [left, right] = domain;
  const at = (number) => (right > left ? 4 + ((number - left) / (right - left)) * (BAR_WIDTH - 8) : BAR_WIDTH / 2);
  const middle = BAR_HEIGHT / 2;
  const line = (x1, x2, name) => svgElement("line", { x1, x2, y1: middle, y2: middle, class: name });
  const bar = svgElement("svg", { class: "bar", width: BAR_WIDTH, height: BAR_HEIGHT, "aria-hidden": "true" });
  bar.append(line(0, BAR_WIDTH, "axis"));
  if (low !== null && high !== null) bar.append(line(at(low).toFixed(1), at(high).toFixed(1), "interval"));
  bar.append(svgElement("circle", { cx: at(value).toFixed(1), cy: middle, r: 3.5, class: "point" }));
  return bar;
}

function domainOf(values) {
  let left = Infinity;
  let right = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined) continue;
    if (value < left) left = value;
    if (value > right) right = value;
  }
  return [left, right];
}

function withBar(text, bar) {
  return element("span", { class: "with-bar" }, element("span", { class: "value" }, text), bar);
}

const missingMark = (text) => element("span", { class: "missing" }, text);

// Row of each backbone in a view, -1 if it has none; computed once for each view.
function rowsOf(view) {
  if (!view.rows) {
    view.rows = new Int32Array(MANY_BACKBONES).fill(-1);
    view.backbone.forEach((backbone, row) => { view.rows[backbone] = row; });
  }
  return view.rows;
}

const inView = (view, name) => (backbone) => view[name][rowsOf(view)[backbone]];

function backboneColumn() {
  return {
    key: "backbone", label: "Backbone", natural: 1, header: true,
    value: (backbone) => BACKBONES.name[backbone],
    render: (backbone) => {
      const cell = document.createDocumentFragment();
      cell.append(element("a", { href: backboneHref(backbone) }, ...breakable(BACKBONES.name[backbone])), paradigmMark(backbone));
      return cell;
    },
  };
}

function incompleteMark(view, backbone) {
  const ran = `${counted(inView(view, "settings_run")(backbone))} of ${plural(view.settings.length, "setting")}`;
  const cell = document.createDocumentFragment();
  cell.append(missingMark("no rank"), element("span", { class: "under" }, ran));
  return cell;
}

function rankColumn(view) {
  const [rank, low, high, group] = ["rank", "rank_low", "rank_high", "group"].map((name) => inView(view, name));
  const domain = [1, view.backbone.length];
  return {
    key: "rank", label: "Rank", sub: "95% interval", natural: 1, numeric: true, kind: "rank", value: rank,
    render: (backbone) => {
      if (rank(backbone) === null) return incompleteMark(view, backbone);
      const known = low(backbone) !== null;
      const under = known ? `${low(backbone)} to ${high(backbone)} \u00b7 group ${group(backbone)}` : "no interval";
      const bar = intervalBar(rank(backbone), low(backbone), high(backbone), domain);
      const cell = document.createDocumentFragment();
      cell.append(withBar(String(rank(backbone)), bar), element("span", { class: "under" }, under));
      return cell;
    },
  };
}

const AGGREGATES = {
  mean_z: { label: "Mean z", natural: -1, text: (value) => signed(value, 2) },
  mean_rank: { label: "Mean rank", natural: 1, text: (value) => fixed(value, 1) },
  borda: { label: "Borda", natural: -1, text: (value) => fixed(value, 2) },
  win_rate: { label: "Win rate", natural: -1, text: (value) => fixed(100 * value, 0) + "%" },
};

function aggregateColumn(view, name) {
  const kind = AGGREGATES[name];
  const value = inView(view, name);
  const bounds = name === "mean_z" ? [inView(view, "mean_z_low"), inView(view, "mean_z_high")] : null;
  const domain = bounds && domainOf([...view.mean_z, ...view.mean_z_low, ...view.mean_z_high]);
  return {
    key: name, label: kind.label, sub: name === DATA.policy.by ? "ranked by this" : "", natural: kind.natural, numeric: true, value,
    render: (backbone) => {
      if (value(backbone) === null) return missingMark("\u2013");
      const text = kind.text(value(backbone));
      return bounds ? withBar(text, intervalBar(value(backbone), bounds[0](backbone), bounds[1](backbone), domain)) : text;
    },
  };
}

function parametersColumn() {
  return {
    key: "parameters", label: "Parameters", natural: 1, numeric: true,
    value: (backbone) => BACKBONES.parameters[backbone],
    render: (backbone) => (BACKBONES.parameters[backbone] === null ? missingMark("unknown") : millions(BACKBONES.parameters[backbone])),
  };
}

function categoryColumn(view) {
  const column = aggregateColumn(view, "mean_z");
  const rows = rowsOf(view);
  return {
    ...column, key: "view " + view.id, label: view.label, sub: `mean z of ${plural(view.settings.length, "setting")}`,
    value: (backbone) => (rows[backbone] < 0 ? null : column.value(backbone)),
    render: (backbone) => (rows[backbone] < 0 ? missingMark("not run") : column.render(backbone)),
  };
}

function scoreButton(cell, backbone, setting, domain) {
  const text = scoreText(CELLS.score[cell], setting);
  const interval = intervalText(CELLS.low[cell], CELLS.high[cell], setting);
  const spoken = `${text}, ${CELLS.low[cell] === null ? "" : "95% "}${interval}, ${SETTINGS.name[setting]}, ${BACKBONES.name[backbone]}: show its runs`;
  const bar = intervalBar(CELLS.score[cell], CELLS.low[cell], CELLS.high[cell], domain);
  const button = element("button", { type: "button", class: "score", "data-cell": cell, "aria-label": spoken }, withBar(text, bar));
  return button;
}

function settingColumn(setting) {
  const cells = [];
  for (let backbone = 0; backbone < MANY_BACKBONES; backbone++) {
    if (cellAt(backbone, setting) >= 0) cells.push(cellAt(backbone, setting));
  }
  const domain = domainOf(cells.flatMap((cell) => [CELLS.score[cell], CELLS.low[cell], CELLS.high[cell]]));
  const higher = SETTINGS.higher[setting];
  const value = (backbone) => {
    const cell = cellAt(backbone, setting);
    return cell < 0 ? null : CELLS.score[cell];
  };
  const render = (backbone) => {
    const cell = cellAt(backbone, setting);
    return cell < 0 ? missingMark("not run") : scoreButton(cell, backbone, setting, domain);
  };
  const sub = `${SETTINGS.protocol[setting]} \u00b7 ${SETTINGS.metric[setting]}${higher ? "" : ", lower is better"}`;
  return { key: "setting " + setting, label: SETTINGS.task[setting], sub, natural: higher ? -1 : 1, numeric: true, value, render };
}
