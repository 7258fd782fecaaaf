// Charts are drawn when they come near the window, in the colours of the theme.

const NEUTRAL = "#000000"; // stands for the text's colour in a chart

function themed(value, text) {
  if (value === NEUTRAL) return text;
  if (Array.isArray(value)) return value.map((item) => themed(item, text));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, text)]));
  }
  return value;
}

function themedLayout(layout, colour) {
  const axis = { gridcolor: colour("--grid"), zerolinecolor: colour("--rule"), linecolor: colour("--rule") };
  const made = {
    margin: { l: 60, r: 20, t: 20, b: 50 }, ...layout, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { ...layout.font, family: getComputedStyle(document.body).fontFamily, color: colour("--text") },
    hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--rule"), font: { color: colour("--text") } }, uirevision: "kept",
  };
  for (const name of Object.keys(layout)) if (/^[xy]axis\d*$/.test(name)) made[name] = { ...axis, ...layout[name] };
  for (const name of ["xaxis", "yaxis"]) made[name] ??= axis;
  return made;
}

// On a phone the legend stands in a column, which takes height, and names beside points have no room.
function fitted(spec) {
  if (!NARROW.matches) return spec;
  return { data: spec.data.filter((trace) => trace.meta !== "labels"),
    layout: { ...spec.layout, height: spec.layout?.meta?.narrow_height ?? spec.layout?.height } };
}

function drawChart(figure) {
  const spec = figure.spec ??= JSON.parse(byId("chart-" + figure.dataset.chart).textContent);
  const { data, layout: wanted = {} } = fitted(spec);
  const place = figure.querySelector(".plot");
  const computed = getComputedStyle(document.documentElement);
  const colour = (name) => computed.getPropertyValue(name).trim();
  const layout = themedLayout(themed(wanted, colour("--text")), colour);
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  if (layout.height) place.style.height = `${layout.height}px`;
  Plotly.react(place, themed(data, colour("--text")), layout, config);
}

function chartTable(figure) {
  const { columns, rows, numeric } = JSON.parse(byId("table-" + figure.dataset.chart).textContent);
  return dataTable(figure.querySelector("h3").textContent, columns, rows.map((row) => row.map((value) => (value === null ? "" : String(value)))), numeric);
}

function startCharts() {
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const draw = (figure) => { figure.drawn = true; drawChart(figure); };
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && !target.drawn) draw(target);
    }
  }, { rootMargin: "300px" });
  for (const figure of figures) {
    near.observe(figure);
    figure.append(lazyDetails("The numbers of this chart", () => chartTable(figure)));
  }
  const redraw = () => figures.filter((figure) => figure.drawn).forEach(drawChart);
  themeListeners.push(redraw);
  NARROW.addEventListener("change", redraw);
  addEventListener("beforeprint", () => figures.forEach(draw));
}
