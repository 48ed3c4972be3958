// Charts as SVG, drawn for the width that they have, so that text keeps its size.

const MARGIN = { left: 44, right: 10, top: 8, bottom: 22 };
const PRINT_WIDTH = 680;
const redraws = [];
let printing = false;

// Round numbers that cover low to high.
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step || 0);
  return found;
}

function bounds(values, always = []) {
  const known = [...values.filter((value) => value !== null), ...always];
  if (!known.length) return [0, 1];
  const low = Math.min(...known), high = Math.max(...known);
  if (low === high && always.includes(low)) return [low, low + 1];
  if (low === high) return [Math.min(low * 0.9, low - 1), Math.max(high * 1.1, high + 1)];
  const gap = (high - low) * 0.06;
  return [always.includes(low) ? low : low - gap, always.includes(high) ? high : high + gap];
}

// The path of a curve, with a gap where a value is not known.
function path(values, x, y) {
  let text = "", open = false;
  values.forEach((value, i) => {
    if (value === null) open = false;
    else {
      text += `${open ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
      open = true;
    }
  });
  return text;
}

function sample(series) {
  const shape = series.bars
    ? makeSvg("rect", { x: 8, y: 1, width: 10, height: 8, class: `bars ${series.kind}` })
    : makeSvg("path", { d: "M1 5H25", class: `curve ${series.kind}` });
  return makeSvg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }, shape);
}

// Whole numbers of the x axis, of which `first` is the first.
function axes(svg, box, x, y, labels) {
  for (const value of ticks(...box.range, box.bottom / 34)) {
    svg.append(
      makeSvg("path", { d: `M${box.left} ${y(value)}H${box.right}`, class: value === 0 ? "zero" : "grid" }),
      makeSvg("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)),
    );
  }
  const spots = ticks(labels.first, labels.last, Math.max(2, (box.right - box.left) / (labels.last < 100 ? 32 : 70)));
  for (const value of spots.filter(Number.isInteger)) {
    const at = { x: x(value - labels.first), y: box.bottom + 15, "text-anchor": "middle" };
    svg.append(makeSvg("text", at, whole(value)));
  }
}

function drawSeries(svg, series, x, y, width) {
  if (series.bars) {
    const wide = Math.max(1, Math.min(14, width * 0.7));
    series.values.forEach((value, i) => {
      if (!value) return;
      const [top, bottom] = [y(Math.max(0, value)), y(Math.min(0, value))];
      const shape = { x: x(i) - wide / 2, y: top, width: wide, height: Math.max(1, bottom - top) };
      svg.append(makeSvg("rect", { ...shape, class: `bars ${series.kind}` }));
    });
    return;
  }
  svg.append(makeSvg("path", { d: path(series.values, x, y), class: `curve ${series.kind}` }));
  if (width < 14) return;
  series.values.forEach((value, i) => {
    if (value === null) return;
    const kind = { class: `dot ${series.kind}` };
    const shape = series.kind === "predicted"
      ? makeSvg("circle", { ...kind, cx: x(i), cy: y(value), r: 3.5 })
      : makeSvg("rect", { ...kind, x: x(i) - 3, y: y(value) - 3, width: 6, height: 6 });
    svg.append(shape);
  });
}

// A chart of series over whole numbers. Options: title, series [{name, kind, values, bars}], first
// (number of the first value), height, zero (0 is shown), always (values that are shown), ends (where lines are drawn), pick (what
// a click on a position does), follow (a cursor shows the current step).
function chart(host, options) {
  const figure = make("figure");
  const legend = make("div", { class: "legend" });
  const numbers = options.series.map((series) => {
    const shown = make("b");
    legend.append(make("span", {}, sample(series), series.name, shown));
    return shown;
  });
  const hole = make("div");
  figure.append(make("figcaption", {}, options.title), legend, hole);
  host.append(figure);
  let place = () => {};
  const draw = () => {
    place = drawChart(hole, figure, options);
    if (options.follow) place(present);
  };
  redraws.push(draw);
  if (options.follow) {
    onStep((step) => {
      place(step);
      options.series.forEach((series, i) => (numbers[i].textContent = number(series.values[step])));
    });
  }
  return (series) => {
    options.series.forEach((one, i) => (one.values = series[i]));
    draw();
  };
}

function drawChart(hole, figure, options) {
  const width = printing ? PRINT_WIDTH / (options.narrow ? 2 : 1) : Math.max(200, figure.clientWidth);
  const height = options.height || 130;
  const count = Math.max(...options.series.map((series) => series.values.length));
  const first = options.first || 0;
  const box = { left: MARGIN.left, right: width - MARGIN.right, bottom: height - MARGIN.bottom };
  box.range = bounds(options.series.flatMap((series) => series.values), options.always || (options.zero ? [0] : []));
  const gap = (box.right - box.left) / Math.max(1, count - 1 + (options.pad ? 1 : 0));
  const x = (i) => box.left + gap * (i + (options.pad ? 0.5 : 0));
  const y = (value) =>
    box.bottom - ((value - box.range[0]) / (box.range[1] - box.range[0])) * (box.bottom - MARGIN.top);
  const label = `${options.title}: ${options.series.map((series) => series.name).join(", ")}`;
  const svg = makeSvg("svg", {
    class: `chart${options.pick ? " pick" : ""}`, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label,
  });
  axes(svg, box, x, y, { first, last: first + count - 1 });
  for (const i of options.ends || []) {
    const about = makeSvg("title", {}, "a training episode ends");
    svg.append(makeSvg("path", { d: `M${x(i)} ${MARGIN.top}V${box.bottom}`, class: "ends" }, about));
  }
  for (const series of options.series) drawSeries(svg, series, x, y, gap);
  const cursor = makeSvg("path", { class: "cursor", d: "" });
  if (options.follow) svg.append(cursor);
  if (options.pick) listen(svg, width, (at) => options.pick(Math.round((at - x(0)) / gap)));
  hole.replaceChildren(svg);
  return (step) => cursor.setAttribute("d", `M${x(step)} ${MARGIN.top}V${box.bottom}`);
}

// Report the position of the pointer, in units of the drawing, while it is pressed.
function listen(svg, width, tell) {
  const told = (event) => {
    const frame = svg.getBoundingClientRect();
    tell(((event.clientX - frame.left) / frame.width) * width);
  };
  svg.addEventListener("pointerdown", told);
  svg.addEventListener("pointermove", (event) => event.buttons && told(event));
}

// Predicted against realised values, with the current step marked; on the diagonal they agree.
function scatter(host, options) {
  const figure = make("figure"), hole = make("div");
  const legend = make("div", { class: "legend" }, options.note);
  figure.append(make("figcaption", {}, options.title), legend, hole);
  host.append(figure);
  let place = () => {};
  const draw = () => { place = drawScatter(hole, figure, options); place(present); };
  redraws.push(draw);
  onStep((step) => place(step));
}

function drawScatter(hole, figure, { title, xs, ys, height, xName, yName }) {
  const width = printing ? PRINT_WIDTH / 2 : Math.max(200, figure.clientWidth);
  const range = bounds([...xs, ...ys]);
  const box = { left: MARGIN.left, right: width - MARGIN.right, bottom: height - MARGIN.bottom - 12 };
  const x = (value) => box.left + ((value - range[0]) / (range[1] - range[0])) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - range[0]) / (range[1] - range[0])) * (box.bottom - MARGIN.top);
  const svg = makeSvg("svg", {
    class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${title}: ${yName} against ${xName}`,
  });
  for (const value of ticks(...range, 5)) {
    svg.append(
      makeSvg("path", { d: `M${box.left} ${y(value)}H${box.right}`, class: "grid" }),
      makeSvg("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)),
      makeSvg("text", { x: x(value), y: box.bottom + 14, "text-anchor": "middle" }, number(value)),
    );
  }
  svg.append(
    makeSvg("path", { d: `M${x(range[0])} ${y(range[0])}L${x(range[1])} ${y(range[1])}`, class: "zero" }),
    makeSvg("text", { x: box.right, y: box.bottom + 28, "text-anchor": "end" }, `${xName} →`),
    makeSvg("text", { x: box.left - 6, y: box.bottom + 28 }, `↑ ${yName}`),
  );
  const cloud = makeSvg("g", { class: "cloud" });
  const every = Math.ceil(xs.length / 800);
  for (let i = 0; i < xs.length; i += every) {
    cloud.append(makeSvg("circle", { cx: x(xs[i]), cy: y(ys[i]), r: 2.5, class: "dot predicted" }));
  }
  const here = makeSvg("circle", { r: 5, class: "dot here searched" });
  svg.append(cloud, here);
  hole.replaceChildren(svg);
  return (step) => {
    here.setAttribute("cx", x(xs[step]));
    here.setAttribute("cy", y(ys[step]));
  };
}

function redraw() {
  for (const draw of redraws) draw();
}
