// What the page shows of a step, and the controls.

const KINDS = { good: "✓ good", note: "· note", warning: "! warning" };

function heading() {
  for (const other of document.querySelectorAll(CONTINUOUS ? ".discrete" : ".continuous")) other.remove();
  document.title = DATA.title;
  byId("about").textContent = DATA.about;
  for (const [kind, text] of DATA.findings) {
    const item = make("li", { class: kind }, make("span", { class: "kind" }, KINDS[kind]), make("span", {}, text));
    byId("findings").append(item);
  }
  for (const [name, text] of DATA.settings) {
    const row = make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, text));
    byId("settings").tBodies[0].append(row);
  }
  byId("horizon").textContent = DATA.horizon;
  if (!CONTINUOUS) byId("most").textContent = number(Math.log(DATA.actions.length));
}

function drawFrame(step) {
  const { images, index, width, height } = DATA.frames;
  const image = byId("frame");
  const about = `before step ${step}: ${actionName(STEPS.action[step])} follows, worth ${number(STEPS.reward[step])}`;
  image.hidden = !images.length;
  byId("observation").hidden = images.length > 0;
  if (images.length) {
    image.src = images[index[step]];
    image.alt = `The game ${about}`;
    image.className = Math.min(width, height) <= 200 ? "pixels" : "";
  } else {
    byId("observation").textContent = `This game renders no image. The agent's observation ${about}:\n` +
      STEPS.observation[step].map(number).join("  ");
  }
}

const TILES = [
  ["Action", (t) => actionName(STEPS.action[t])],
  ["Reward", (t) => number(STEPS.reward[t])],
  ["Score so far", (t) => number(STEPS.score[t])],
  ["Search gain", (t) => number(STEPS.gain[t])],
  ["Value, network", (t) => number(STEPS.value[t])],
  ["Value, search", (t) => number(STEPS.search_value[t])],
  ["Realised return", (t) => number(STEPS.realised[t])],
  ["Value error", (t) => number(STEPS.value[t] - STEPS.realised[t])],
];

function startTiles() {
  byId("tiles").classList.toggle("wide", CONTINUOUS && DATA.actions.length > 2);
  const shown = TILES.map(([name]) => {
    const value = make("dd");
    byId("tiles").append(make("div", {}, make("dt", {}, name), value));
    return value;
  });
  onStep((step) => TILES.forEach(([, tell], i) => (shown[i].textContent = tell(step))));
}

function meter(kind, share) {
  const fill = make("i", { class: kind, style: `width:${(100 * share).toFixed(1)}%` });
  return make("span", { class: "meter", "aria-hidden": "true" }, fill);
}

function table(head, rows) {
  const cells = head.map((text) => make("th", { scope: "col" }, text));
  return make("table", {}, make("thead", {}, make("tr", {}, ...cells)), make("tbody", {}, ...rows));
}

function drawPolicy(step) {
  const taken = STEPS.action[step];
  const rows = DATA.actions.map((name, a) => {
    const label = a === taken ? `▶ ${name} (taken)` : name;
    return make(
      "tr", { class: a === taken ? "taken" : "" },
      make("th", { scope: "row" }, label),
      make("td", { class: "bar" }, number(STEPS.prior[step][a]), meter("network", STEPS.prior[step][a])),
      make("td", { class: "bar" }, number(STEPS.policy[step][a]), meter("search", STEPS.policy[step][a])),
      make("td", {}, whole(STEPS.visits[step][a])),
      make("td", {}, number(STEPS.q[step][a])),
    );
  });
  byId("policy").replaceChildren(table(["action", "network", "search", "visits", "Q"], rows));
  const favourite = STEPS.prior[step].indexOf(Math.max(...STEPS.prior[step]));
  byId("choice").textContent = favourite === taken
    ? `The search agrees with the network: ${actionName(taken)}.`
    : `The network would take ${actionName(favourite)}; after the search it is ${actionName(taken)}.`;
}

function startOverview() {
  const host = byId("overview");
  const shared = { pick: setStep, follow: true };
  const ends = STEPS.ends.flatMap((end, t) => (end ? [t] : []));
  chart(host, {
    ...shared, title: "Value and realised return", height: 190, ends,
    series: [
      { name: "network", kind: "predicted", values: STEPS.value },
      { name: "search", kind: "searched", values: STEPS.search_value },
      { name: "realised", kind: "realised", values: STEPS.realised },
    ],
  });
  chart(host, {
    ...shared, title: "Reward", height: 90, zero: true, ends,
    series: [{ name: "reward of the action", kind: "realised", values: STEPS.reward, bars: true }],
  });
  chart(host, {
    ...shared, title: "Search gain", height: 100, zero: true,
    series: [{ name: "search over network", kind: "searched", values: STEPS.gain, bars: true }],
  });
  if (CONTINUOUS) startNumbers(host, shared);
  else chart(host, {
    ...shared, title: "Entropy of the policy", height: 110, zero: true,
    series: [
      { name: "network", kind: "predicted", values: STEPS.prior_entropy },
      { name: "search", kind: "searched", values: STEPS.policy_entropy },
    ],
  });
}

function startImagined() {
  const host = byId("imagined");
  const start = (title, first) => chart(host, {
    title, first, zero: first === 1, height: 150, pad: true, narrow: true,
    series: [
      { name: "imagined", kind: "predicted", values: [0] },
      { name: "actual", kind: "realised", values: [0] },
    ],
  });
  const prefixes = start("Value prefix by depth", 1), values = start("Value by depth", 0);
  // The values of a step as far as the actual ones are known.
  const known = (name, step) => {
    const real = DATA.real[name][step].filter((value) => value !== null);
    return [DATA.imagined[name][step].slice(0, real.length), real];
  };
  onStep((step) => {
    prefixes(known("value_prefix", step));
    const [imagined, real] = known("value", step);
    values([[STEPS.value[step], ...imagined], [STEPS.realised[step], ...real]]);
    drawDepths(step);
  });
}

// The table of depths: imagined values, and the actual ones below.
function drawDepths(step) {
  const plain = (text) => make("td", {}, text);
  const both = (imagined, real) =>
    make("td", {}, number(imagined), make("span", { class: "real" }, `actual ${number(real)}`));
  const row = (depth, ...cells) => make("tr", {}, make("th", { scope: "row" }, String(depth)), ...cells);
  const now = both(STEPS.value[step], STEPS.realised[step]);
  const rows = [row(0, plain("–"), plain("–"), plain("–"), now)];
  const names = ["reward", "value_prefix", "value"];
  DATA.real.reward[step].forEach((reward, k) => {
    if (reward === null) return;
    const pairs = names.map((name) => both(DATA.imagined[name][step][k], DATA.real[name][step][k]));
    rows.push(row(k + 1, plain(actionName(STEPS.action[step + k])), ...pairs));
  });
  byId("depths").replaceChildren(table(["depth", "action", "reward", "value prefix", "value"], rows));
}

function startErrors() {
  const host = byId("errors");
  const names = { value_prefix: "Prefix", reward: "Reward", value: "Value" };
  for (const [name, word] of Object.entries(names)) {
    const { error, guess } = DATA.errors[name];
    chart(host, {
      title: `${word} error by depth`, height: 160, pad: true, zero: true, narrow: true, first: name === "value" ? 0 : 1,
      series: [
        { name: "model", kind: "predicted", values: error },
        { name: "guessing the mean", kind: "searched", values: guess },
      ],
    });
  }
  const { bias, correlation } = DATA.calibration;
  scatter(host, {
    title: "Value calibration", height: 190,
    xs: STEPS.value, ys: STEPS.realised, xName: "network's value", yName: "realised",
    note: `mean difference ${number(bias)}, correlation ${number(correlation)}; orange: current step`,
  });
}

// Playing and moving.
let timer = 0;

function play(on) {
  clearInterval(timer);
  const forward = () => (present < TOTAL - 1 ? setStep(present + 1) : play(false));
  timer = on ? setInterval(forward, 1000 / byId("speed").value) : 0;
  byId("play").textContent = on ? "Pause" : "Play";
}

function togglePlay() {
  if (!timer && present === TOTAL - 1) setStep(0);
  play(!timer);
}

function startControls() {
  const slider = byId("step");
  slider.max = TOTAL - 1;
  slider.addEventListener("input", () => setStep(Number(slider.value)));
  byId("back").addEventListener("click", () => setStep(present - 1));
  byId("next").addEventListener("click", () => setStep(present + 1));
  byId("play").addEventListener("click", togglePlay);
  byId("speed").addEventListener("change", () => timer && play(true));
  document.addEventListener("keydown", (event) => {
    // Keys keep their own meaning in controls.
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, [role=tree]")) return;
    if (event.key === " " && event.target.closest("button, summary")) return;
    const far = event.shiftKey ? 10 : 1;
    const go = {
      ArrowRight: () => setStep(present + far), ArrowLeft: () => setStep(present - far),
      Home: () => setStep(0), End: () => setStep(TOTAL - 1), " ": togglePlay,
    }[event.key];
    if (!go) return;
    event.preventDefault();
    go();
  });
  onStep((step) => {
    slider.value = step;
    slider.setAttribute("aria-valuetext", `step ${step} of ${TOTAL - 1}`);
    byId("place").textContent = `${whole(step)} of ${whole(TOTAL - 1)}`;
  });
}

// On paper there is more height and less width, and nothing to open.
function startPrinting() {
  const words = byId("words");
  let wasOpen = false;
  const set = (on) => {
    printing = on;
    if (on) {
      wasOpen = words.open;
      openLine();
    }
    words.open = on || wasOpen;
    redraw();
  };
  window.addEventListener("beforeprint", () => set(true));
  window.addEventListener("afterprint", () => set(false));
}

heading();
onStep(drawFrame);
startTiles();
if (CONTINUOUS) startSpace();
else onStep(drawPolicy);
startOverview();
startTree();
startImagined();
startErrors();
startControls();
startPrinting();
let lastWidth = document.documentElement.clientWidth;
window.addEventListener("resize", () => {
  if (printing || document.documentElement.clientWidth === lastWidth) return;
  lastWidth = document.documentElement.clientWidth;
  redraw();
});
redraw();
drawStep();
