// Continuous actions: the candidates of a search as a picture of the action space, from -1 to 1.

const BINS = 80; // of the network's policy
const INSET = 12; // room for the dots at the bounds
const NEAR = 40; // pixels within which the pointer means a candidate

// Cumulative normal distribution (Abramowitz and Stegun, 7.1.26; error below 1e-6).
function normalBelow(z) {
  const t = 1 / (1 + 0.3275911 * Math.abs(z) * Math.SQRT1_2);
  const sum = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592].reduce((all, c) => all * t + c, 0);
  const tail = 0.5 * sum * t * Math.exp((-z * z) / 2);
  return z > 0 ? 1 - tail : tail;
}

// The shares of a squashed normal in equal bins of -1..1. At the bounds its density can be almost
// infinite, its share cannot.
function shares(mean, deviation, bins = BINS) {
  const below = (a) => (a <= -1 ? 0 : a >= 1 ? 1 : normalBelow((Math.atanh(a) - mean) / deviation));
  return Array.from({ length: bins }, (_, i) => below(-1 + (2 * (i + 1)) / bins) - below(-1 + (2 * i) / bins));
}

// The candidates of a step with what is drawn of them.
function candidatesOf(step) {
  const visits = STEPS.visits[step], qs = STEPS.q[step];
  const most = Math.max(...visits), low = Math.min(...qs), high = Math.max(...qs);
  return STEPS.candidates[step].map((action, i) => ({
    place: i, action, visits: visits[i], q: qs[i], target: STEPS.policy[step][i], taken: i === STEPS.chosen[step],
    shade: high > low ? (qs[i] - low) / (high - low) : 0.5,
    radius: visits[i] ? 4 + 6 * Math.sqrt(visits[i] / most) : 3,
  }));
}

const fillOf = (share) => `color-mix(in srgb, var(--search) ${(8 + 92 * share).toFixed(0)}%, var(--card))`;

function candidateDot(candidate, x, y, size = 1) {
  if (!candidate.visits) return makeSvg("circle", { cx: x, cy: y, r: candidate.radius * size, class: "candidate unvisited" });
  const shape = { cx: x, cy: y, r: candidate.radius * size, class: "candidate" };
  return makeSvg("circle", { ...shape, style: `fill:${fillOf(candidate.shade)}` });
}

const takenRing = (candidate, x, y, size = 1) =>
  makeSvg("circle", { cx: x, cy: y, r: candidate.radius * size + 3, class: "candidate ring" });

// Not searched first, then the large ones, so that the small ones stay visible.
const paintOrder = (candidates) =>
  [...candidates].sort((a, b) => (a.visits > 0) - (b.visits > 0) || b.visits - a.visits);

// The network's policy as an area: `along` places an action, `up` a share of the most likely bin.
function policyArea(mean, deviation, along, up, turned = false) {
  const found = shares(mean, deviation), most = Math.max(...found);
  const spot = (a, height) => (turned ? [up(height), along(a)] : [along(a), up(height)]).map((v) => v.toFixed(1)).join(" ");
  let text = `M${spot(-1, 0)}`;
  found.forEach((share, i) => {
    text += `L${spot(-1 + (2 * i) / BINS, share / most)}L${spot(-1 + (2 * (i + 1)) / BINS, share / most)}`;
  });
  return makeSvg("path", { d: `${text}L${spot(1, 0)}Z`, class: "policy" });
}

// Lines and numbers of an axis of actions.
function actionLines(svg, x, top, bottom, labels = true) {
  for (const value of [-1, -0.5, 0, 0.5, 1]) {
    svg.append(makeSvg("path", { d: `M${x(value)} ${top}V${bottom}`, class: value === 0 ? "zero" : "grid" }));
    if (labels) svg.append(makeSvg("text", { x: x(value), y: bottom + 15, "text-anchor": "middle" }, number(value)));
  }
}

const drawing = (width, height, what) => makeSvg("svg", {
  class: "chart space", viewBox: `0 0 ${width} ${height}`, role: "img",
  "aria-label": `${what} Their numbers are in the table below.`,
});

const scale = (from, to) => (value) => from + ((value + 1) / 2) * (to - from);

// Each picture returns its drawing and the places of the candidates, to be found by the pointer.

// One number: actions to the right, Q upwards.
function lineOfActions(step, candidates, width) {
  const height = 250, box = { left: 52, right: width - 16, bottom: height - 38 };
  const x = scale(box.left + INSET, box.right - INSET);
  box.range = bounds(candidates.map(({ q }) => q));
  const rise = (box.bottom - 14) / (box.range[1] - box.range[0]);
  const y = (q) => box.bottom - (q - box.range[0]) * rise;
  const svg = drawing(width, height, "Candidates from −1 to 1 by their Q, over the network's policy.");
  const up = (share) => box.bottom - share * (box.bottom - 14) * 0.7;
  svg.append(policyArea(STEPS.mean[step][0], STEPS.deviation[step][0], x, up));
  for (const value of ticks(...box.range, 5)) {
    svg.append(
      makeSvg("path", { d: `M${box.left} ${y(value)}H${box.right}`, class: "grid" }),
      makeSvg("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)),
    );
  }
  actionLines(svg, x, 8, box.bottom);
  svg.append(
    makeSvg("text", { x: box.right, y: height - 8, "text-anchor": "end" }, "action →"),
    makeSvg("text", { x: 4, y: height - 8 }, "↑ Q"),
  );
  return { svg, spots: dots(svg, candidates, (c) => [[x(c.action[0]), y(c.q)]]) };
}

// Two numbers: a square, with the network's policy along both sides.
function squareOfActions(step, candidates, width) {
  const left = 44, top = 44, side = Math.min(width - left - 54, 380), right = left + side, bottom = top + side;
  const x = scale(left + INSET, right - INSET), y = scale(bottom - INSET, top + INSET);
  const svg = drawing(width, bottom + 36, "Candidates as points in the square of both numbers, darker with a higher Q.");
  const [mean, deviation] = [STEPS.mean[step], STEPS.deviation[step]];
  svg.append(
    policyArea(mean[0], deviation[0], x, (share) => top - 6 - share * 32),
    policyArea(mean[1], deviation[1], y, (share) => right + 6 + share * 32, true),
  );
  actionLines(svg, x, top, bottom);
  for (const value of [-1, -0.5, 0, 0.5, 1]) {
    svg.append(
      makeSvg("path", { d: `M${left} ${y(value)}H${right}`, class: value === 0 ? "zero" : "grid" }),
      makeSvg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)),
    );
  }
  svg.append(
    makeSvg("text", { x: right, y: bottom + 31, "text-anchor": "end" }, `${shortName(0)} →`),
    makeSvg("text", { x: left - 6, y: top - 12, "text-anchor": "end" }, `↑ ${shortName(1)}`),
  );
  return { svg, spots: dots(svg, candidates, (c) => [[x(c.action[0]), y(c.action[1])]]) };
}

// More numbers: a strip for each, and a line for each candidate.
function stripsOfActions(step, candidates, width) {
  const names = DATA.actions.map((_, d) => shortName(d));
  const tall = names.length > 8 ? 30 : 44, top = 8, bottom = top + tall * names.length;
  const left = 20 + 6.5 * Math.max(...names.map((name) => name.length));
  const x = scale(left, width - 16), y = (d) => top + tall * (d + 0.5);
  const svg = drawing(width, bottom + 22, "A strip from −1 to 1 for each number of an action; candidates are lines, darker with a higher Q.");
  names.forEach((name, d) => {
    const up = (share) => top + tall * (d + 1 - 0.75 * share);
    svg.append(policyArea(STEPS.mean[step][d], STEPS.deviation[step][d], x, up));
    svg.append(makeSvg("path", { d: `M${x(-1)} ${top + tall * (d + 1)}H${x(1)}`, class: "grid" }));
    svg.append(makeSvg("text", { x: left - 14, y: y(d) + 4, "text-anchor": "end" }, name));
  });
  actionLines(svg, x, top, bottom);
  const spotsOf = (c) => c.action.map((value, d) => [x(value), y(d)]);
  for (const candidate of paintOrder(candidates)) {
    if (candidate.visits) svg.append(thread(spotsOf(candidate), "thread"));
  }
  return { svg, spots: dots(svg, candidates, spotsOf, 0.7) };
}

const thread = (spots, kind) =>
  makeSvg("path", { d: `M${spots.map((spot) => spot.map((v) => v.toFixed(1)).join(" ")).join("L")}`, class: kind });

// Draw all candidates; returns the places of each.
function dots(svg, candidates, spotsOf, size = 1) {
  for (const candidate of paintOrder(candidates)) {
    for (const [x, y] of spotsOf(candidate)) svg.append(candidateDot(candidate, x, y, size));
  }
  const taken = candidates.find((candidate) => candidate.taken);
  svg.append(thread(spotsOf(taken), "thread taken"));
  for (const [x, y] of spotsOf(taken)) svg.append(takenRing(taken, x, y, size));
  return candidates.map(spotsOf);
}

function shortName(d) {
  const name = DATA.actions[d];
  return name.length > 12 ? `${name.slice(0, 11)}…` : name;
}

const pictureOf = { 1: lineOfActions, 2: squareOfActions }[DATA.actions.length] || stripsOfActions;

function spaceLegend() {
  const item = (shape, text) => make("span", {}, makeSvg("svg", { viewBox: "0 0 26 14", class: "key" }, ...shape), text);
  const dot = (cx, r, kind = "", share = 0.6) => makeSvg("circle", {
    cx, cy: 7, r, class: `candidate ${kind}`, ...(kind ? {} : { style: `fill:${fillOf(share)}` }),
  });
  const low = make("b"), high = make("b");
  const bar = make("i", { class: "qbar", style: `background:linear-gradient(to right, ${fillOf(0)}, ${fillOf(1)})` });
  const legend = make(
    "div", { class: "legend" },
    item([dot(13, 3.5), dot(13, 6, "ring")], "executed"),
    item([dot(6, 3), dot(18, 6)], "searched, larger with more visits"),
    item([dot(13, 3, "unvisited")], "not searched"),
    item([makeSvg("path", { d: "M1 13Q13 -8 25 13Z", class: "policy" })], "network's policy"),
    make("span", {}, "Q", low, bar, high),
  );
  return [legend, (qs) => {
    low.textContent = number(Math.min(...qs));
    high.textContent = number(Math.max(...qs));
  }];
}

// A candidate in words.
function told(candidate, simulations) {
  const name = candidate.taken ? "Executed" : `Candidate ${candidate.place + 1}`;
  const found = candidate.visits
    ? `Q ${number(candidate.q)} · ${candidate.visits} of ${simulations} visits`
    : `not searched (its Q counts as ${number(candidate.q)})`;
  return `${name}: ${vectorName(candidate.action, 2)} · ${found}`;
}

function candidateTable(candidates) {
  const rows = [...candidates].sort((a, b) => b.visits - a.visits || b.q - a.q).map((each) => make(
    "tr", { class: each.taken ? "taken" : "" },
    make("th", { scope: "row" }, `${each.taken ? "▶ " : ""}${vectorName(each.action, 2)}`),
    make("td", {}, number(each.q)),
    make("td", {}, whole(each.visits)),
    make("td", {}, number(each.target)),
  ));
  return table(["action", "Q", "visits", "target"], rows);
}

function choiceText(step, candidates) {
  const taken = candidates.find((each) => each.taken);
  const better = candidates.filter((each) => each.visits && each.q > taken.q).length;
  const rank = better ? `of which ${better} had a higher Q` : "and none had a higher Q";
  const middle = vectorName(STEPS.mean[step].map(Math.tanh));
  return `The middle of the network's policy is ${middle}; the search executes ${vectorName(taken.action)}. ` +
    `It had ${candidates.length} candidates, ${rank}.`;
}

function startSpace() {
  const [legend, showRange] = spaceLegend();
  const hole = make("div"), words = make("p", { class: "told" }), rows = make("div");
  const list = make("details", { id: "candidates" }, make("summary", {}, "All candidates"), rows);
  byId("policy").append(legend, hole, words, list);
  const draw = (step) => {
    const candidates = candidatesOf(step);
    const simulations = candidates.reduce((sum, each) => sum + each.visits, 0);
    const width = printing ? PRINT_WIDTH : Math.max(200, hole.clientWidth);
    const { svg, spots } = pictureOf(step, candidates, width);
    const mark = makeSvg("g", { class: "mark" });
    svg.append(mark);
    const show = (place) => {
      const meant = candidates[place];
      words.textContent = told(meant, simulations);
      mark.replaceChildren(...(meant.taken ? [] : [
        thread(spots[place], "thread meant"),
        ...spots[place].map(([x, y]) => makeSvg("circle", { cx: x, cy: y, r: meant.radius + 1, class: "candidate meant" })),
      ]));
    };
    point(svg, width, spots, show, STEPS.chosen[step]);
    hole.replaceChildren(svg);
    show(STEPS.chosen[step]);
    showRange(candidates.map(({ q }) => q));
    rows.replaceChildren(candidateTable(candidates));
    byId("choice").textContent = choiceText(step, candidates);
  };
  onStep(draw);
  redraws.push(() => draw(present));
}

// Show the candidate that the pointer is near to, or the executed one.
function point(svg, width, spots, show, taken) {
  const seek = (event) => {
    const frame = svg.getBoundingClientRect(), unit = width / frame.width;
    const x = (event.clientX - frame.left) * unit, y = (event.clientY - frame.top) * unit;
    const away = spots.map((places) => Math.min(...places.map((spot) => Math.hypot(spot[0] - x, spot[1] - y))));
    const nearest = away.indexOf(Math.min(...away));
    show(away[nearest] <= NEAR ? nearest : taken);
  };
  svg.addEventListener("pointermove", seek);
  svg.addEventListener("pointerdown", seek);
  // A finger leaves when it is lifted.
  svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(taken));
}

// What was executed over the episode, number by number, and how wide the network's policy was.
function startNumbers(host, shared) {
  const size = DATA.actions.length, isMany = size > 1;
  const grid = isMany ? make("div", { class: "charts small" }) : host;
  if (isMany) host.append(grid);
  DATA.actions.forEach((name, d) => chart(grid, {
    ...shared, title: isMany ? `Action, ${name}` : "Action", height: isMany ? 96 : 130, always: [-1, 0, 1], narrow: isMany,
    series: [
      { name: "network's middle", kind: "predicted", values: STEPS.mean.map((mean) => Math.tanh(mean[d])) },
      { name: "executed", kind: "searched", values: STEPS.action.map((action) => action[d]) },
    ],
  }));
  const of = (pick) => STEPS.deviation.map(pick);
  const mean = (row) => row.reduce((sum, value) => sum + value, 0) / size;
  chart(host, {
    ...shared, title: "Deviation of the network's policy", height: 110, zero: true,
    series: isMany
      ? [
        { name: "mean", kind: "predicted", values: of(mean) },
        { name: "least", kind: "searched", values: of((row) => Math.min(...row)) },
        { name: "largest", kind: "realised", values: of((row) => Math.max(...row)) },
      ]
      : [{ name: "network", kind: "predicted", values: of(mean) }],
  });
}
