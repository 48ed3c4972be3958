"use strict";
// The data of the page, small helpers, and the current step with its listeners.

const DATA = JSON.parse(document.getElementById("data").textContent);
const STEPS = DATA.steps;
const TOTAL = STEPS.action.length;
const CONTINUOUS = "candidates" in STEPS; // then an action is a list of numbers from -1 to 1
const byId = (id) => document.getElementById(id);

// An element with attributes and children; text stays text.
function filled(element, attributes = {}, ...children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const make = (tag, ...rest) => filled(document.createElement(tag), ...rest);
const makeSvg = (tag, ...rest) => filled(document.createElementNS("http://www.w3.org/2000/svg", tag), ...rest);

// Two or three significant digits, without exponents where they can be avoided.
function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text;
  if (size !== 0 && (size < 0.0001 || size >= 1e6)) text = value.toExponential(1);
  else if (size < 0.1) text = String(Number(value.toPrecision(2)));
  else text = String(Number(value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3)));
  return text.replace("-", "−");
}

const whole = (value) => value.toLocaleString("en");
const actionName = (action) => (CONTINUOUS ? vectorName(action) : DATA.actions[action]);

// A continuous action: +0.42, or (+0.42, −0.90); of long ones the beginning.
function vectorName(action, places = action.length > 2 ? 1 : 2, most = 6) {
  const texts = action.slice(0, most).map((value) => {
    const size = Math.abs(value).toFixed(places);
    return (value < 0 && Number(size) ? "−" : "+") + size;
  });
  if (action.length > most) texts.push("…");
  return action.length > 1 ? `(${texts.join(", ")})` : texts[0];
}

// The current step; everything that shows it is drawn once per frame of the screen.
const listeners = [];
let present = 0;
let isDrawing = false;

function onStep(listener) {
  listeners.push(listener);
}

function setStep(step) {
  present = Math.max(0, Math.min(TOTAL - 1, Math.round(step)));
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(drawStep);
}

function drawStep() {
  isDrawing = false;
  for (const listener of listeners) listener(present);
}
