// The search tree of the current step: a picture by visits, and a list to open and close.

// Nodes opened by hand stay open from step to step; a node's name is the path of its actions.
const opened = new Set();
const closed = new Set();
let focused = "";
let shownTree = null;

// The nodes of a tree as objects, with what follows from the columns.
function readTree(step) {
  const columns = DATA.trees[step];
  const nodes = columns.parent.map((parent, i) => ({
    place: i, parent, action: columns.action[i], visits: columns.visits[i], prior: columns.prior[i],
    reward: columns.reward[i], value: columns.value[i], raw: columns.raw[i],
    q: columns.reward[i] + DATA.discount * columns.value[i], children: [], inLine: false,
    vector: CONTINUOUS ? columns.vector[i] : null,
    depth: 0, name: "", prefix: 0,
  }));
  for (const node of nodes.slice(1)) {
    const parent = nodes[node.parent];
    parent.children.push(node);
    node.depth = parent.depth + 1;
    node.name = `${parent.name}/${node.action}`;
    node.prefix = node.reward + (parent.depth % DATA.horizon ? parent.prefix : 0);
  }
  for (const node of nodes) {
    node.children.sort((a, b) => b.visits - a.visits || b.q - a.q);
    const shown = node.children.reduce((sum, child) => sum + child.visits, 0);
    node.hidden = node.visits - 1 - shown;
  }
  for (const place of columns.line) nodes[place].inLine = true;
  return { nodes, line: columns.line.map((place) => nodes[place]) };
}

const isOpen = (node) =>
  node.children.length > 0 && !closed.has(node.name) && (opened.has(node.name) || node.inLine || node.place === 0);

function setOpen(node, open) {
  (open ? opened : closed).add(node.name);
  (open ? closed : opened).delete(node.name);
}

// The nodes that can be seen, from top to bottom.
function visible(node, found = []) {
  found.push(node);
  if (isOpen(node)) for (const child of node.children) visible(child, found);
  return found;
}

const title = (node) => (node.place === 0 ? "this frame" : actionName(CONTINUOUS ? node.vector : node.action));

function cell(label, text, ...more) {
  const found = make("span", { "data-label": label }, text, ...more);
  found.className = label;
  return found;
}

function nodeRow(node, parent) {
  const opens = node.children.length > 0;
  const row = make("div", {
    role: "treeitem", "aria-level": node.depth + 1, tabindex: node.name === focused ? "0" : "-1",
    class: `node${opens ? " opens" : ""}${node.inLine ? " inline" : ""}`, "data-name": node.name,
  });
  if (opens) row.setAttribute("aria-expanded", isOpen(node));
  row.style.setProperty("--depth", node.depth);
  const said = { role: "img", "aria-label": "principal variation", title: "principal variation" };
  const star = node.inLine ? make("span", said, "★") : "";
  const sign = make("span", { class: "sign", "aria-hidden": "true" }, opens ? (isOpen(node) ? "▾" : "▸") : "·");
  const share = parent ? (100 * node.visits) / Math.max(1, parent.visits - 1) : 100;
  const fill = make("i", { class: "search", style: `width:${share.toFixed(1)}%` });
  row.append(
    make("span", { class: "name" }, sign, title(node), star),
    cell("visits", whole(node.visits), make("span", { class: "meter", "aria-hidden": "true" }, fill)),
    ...(CONTINUOUS ? [] : [cell("prior", parent ? number(node.prior) : "–")]), // equal for candidates
    cell("Q", parent ? number(node.q) : "–"),
    cell("value", number(node.value)),
    cell("reward", parent ? number(node.reward) : "–"),
    cell("prefix", parent ? number(node.prefix) : "–"),
    cell("depth", node.depth),
  );
  return row;
}

function restRow(node) {
  const row = make("div", { class: "node rest", role: "none" });
  row.style.setProperty("--depth", node.depth + 1);
  const text = `${whole(node.hidden)} more visit${node.hidden > 1 ? "s" : ""} of nodes not kept`;
  row.append(make("span", { class: "name" }, make("span", { class: "sign" }, "·"), text));
  return row;
}

function drawTree(step) {
  shownTree = readTree(step);
  const { nodes, line } = shownTree;
  const names = line.slice(1).map(title).join(", ");
  byId("line").textContent =
    `${whole(nodes[0].visits - 1)} simulations, ${whole(nodes.length)} nodes` +
    ` shown, ${Math.max(...nodes.map((node) => node.depth))} steps deep. ` +
    `Principal variation (★): ${names || "none"}.`;
  drawIcicle(shownTree);
  drawList();
}

function drawList() {
  const seen = visible(shownTree.nodes[0]);
  if (!seen.some((node) => node.name === focused)) focused = "";
  const rows = [];
  for (const node of seen) {
    rows.push(nodeRow(node, shownTree.nodes[node.parent]));
    if (node.hidden > 0 && (isOpen(node) || !node.children.length)) rows.push(restRow(node));
  }
  const hadFocus = byId("tree").contains(document.activeElement);
  byId("tree").replaceChildren(...rows);
  if (hadFocus) focusRow(focused);
}

function focusRow(name) {
  focused = name;
  for (const row of byId("tree").querySelectorAll("[role=treeitem]")) {
    row.tabIndex = row.dataset.name === name ? 0 : -1;
    if (row.dataset.name === name) row.focus();
  }
}

const nodeNamed = (name) => shownTree.nodes.find((node) => node.name === name);

function toggle(name) {
  const node = nodeNamed(name);
  if (node.children.length) setOpen(node, !isOpen(node));
  focused = name;
  drawList();
}

// Keys of a tree, as the ARIA practices have them.
function treeKey(event) {
  const node = nodeNamed(focused);
  const seen = visible(shownTree.nodes[0]);
  const at = seen.indexOf(node);
  const go = {
    ArrowDown: () => seen[at + 1], ArrowUp: () => seen[at - 1], Home: () => seen[0], End: () => seen.at(-1),
    ArrowRight: () => (isOpen(node) ? node.children[0] : void (node.children.length && toggle(focused))),
    ArrowLeft: () => (isOpen(node) ? void toggle(focused) : shownTree.nodes[node.parent]),
    Enter: () => void toggle(focused), " ": () => void toggle(focused),
  }[event.key];
  if (!go) return;
  event.preventDefault();
  event.stopPropagation();
  const next = go();
  if (next) focusRow(next.name);
}

// A row per depth, a box per node, as wide as its visits; the darker, the higher the Q.
function drawIcicle({ nodes }) {
  const host = byId("icicle");
  const width = printing ? PRINT_WIDTH : Math.max(200, host.clientWidth), tall = 24;
  const depth = Math.max(...nodes.map((node) => node.depth));
  const qs = nodes.slice(1).map((node) => node.q);
  const [low, high] = [Math.min(...qs), Math.max(...qs)];
  const svg = makeSvg("svg", {
    viewBox: `0 0 ${width} ${(depth + 1) * tall}`, role: "img",
    "aria-label": "The search tree as boxes: a row per depth, as wide as the visits, darker with a higher Q",
  });
  const late = []; // the principal variation is drawn over its neighbours
  const drawBox = (node, from) => {
    const wide = (node.visits / nodes[0].visits) * width;
    const share = high > low ? (node.q - low) / (high - low) : 0.5;
    const box = makeSvg("g", node.inLine ? { class: "inline" } : {});
    const about = `${title(node)}: ${node.visits} visits, Q ${number(node.place ? node.q : node.value)}`;
    box.append(
      makeSvg("rect", {
        x: from, y: node.depth * tall, width: Math.max(0.5, wide), height: tall - 1, rx: 3,
        "fill-opacity": node.place ? (0.08 + 0.5 * share).toFixed(2) : 0.04,
      }, makeSvg("title", {}, about)),
    );
    const label = `${node.inLine && node.place ? "★ " : ""}${title(node)}`;
    if (wide > label.length * 6.4 + 8) {
      box.append(makeSvg("text", { x: from + 6, y: node.depth * tall + 16 }, label));
    }
    box.addEventListener("click", () => reveal(node));
    if (node.inLine) late.push(box);
    else svg.append(box);
    let next = from;
    for (const child of node.children) {
      drawBox(child, next);
      next += (child.visits / nodes[0].visits) * width;
    }
  };
  drawBox(nodes[0], 0);
  svg.append(...late);
  host.replaceChildren(svg);
}

// Open the way to a node and go there in the list.
function reveal(node) {
  for (let at = node; at; at = shownTree.nodes[at.parent]) if (at !== node) setOpen(at, true);
  drawList();
  focusRow(node.name);
}

function startTree() {
  const heads = ["action", "visits", "prior", "Q", "value", "reward", "prefix", "depth"];
  if (CONTINUOUS) heads.splice(heads.indexOf("prior"), 1);
  byId("treebox").classList.toggle("wide", CONTINUOUS);
  document.querySelector(".treehead").append(...heads.map((text) => make("span", {}, text)));
  byId("tree").addEventListener("click", (event) => {
    const row = event.target.closest("[role=treeitem]");
    if (row) {
      toggle(row.dataset.name);
      focusRow(row.dataset.name);
    }
  });
  byId("tree").addEventListener("keydown", treeKey);
  const all = (open) => () => {
    for (const node of shownTree.nodes) if (node.children.length) setOpen(node, open);
    if (!open) setOpen(shownTree.nodes[0], false);
    drawList();
  };
  byId("openall").addEventListener("click", all(true));
  byId("closeall").addEventListener("click", all(false));
  byId("openline").addEventListener("click", openLine);
  redraws.push(() => shownTree && drawIcicle(shownTree));
  onStep(drawTree);
}

function openLine() {
  opened.clear();
  closed.clear();
  drawList();
}
