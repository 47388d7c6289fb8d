// The page: reads the settings, draws the batch of the step under way, and says how a chosen cell was decided. What is
// drawn is a pure function of the settings, as the masks are (masks.js); only the chosen cell is remembered.
"use strict";

const byId = (id) => document.getElementById(id);
const form = byId("settings");
const fields = form.elements;
const limits = { seed: 2n ** 64n, step: 2n ** 56n };
const recentSteps = 100;
const intervalMs = 600;

let chosen = { block: 0, sample: 0 };
let timer = null;

/** An element with attributes, and text or elements in it. */
function make(tag, attributes, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
const hex = (word) => word.toString(16).padStart(8, "0");

/** A whole number of a text field below its limit, or null. */
function wholeNumber(name) {
  const text = fields[name].value.trim();
  const number = /^\d{1,20}$/.test(text) ? BigInt(text) : null;
  return number !== null && number < limits[name] ? number : null;
}

/** The settings, or null where a field is refused, which is said. */
function readSettings() {
  const numbers = { seed: wholeNumber("seed"), step: wholeNumber("step") };
  const refused = Object.keys(numbers).filter((name) => numbers[name] === null);
  for (const name of Object.keys(numbers)) fields[name].setAttribute("aria-invalid", refused.includes(name));
  byId("refusal").textContent = refused
    .map((name) => `${name}: got "${fields[name].value}", expected a whole number from 0 to ${limits[name] - 1n}`)
    .join("; ");
  if (refused.length > 0) return null;
  return {
    ...numbers,
    method: fields.method.value,
    distribution: fields.distribution.value,
    dropRate: fields.dropRate.valueAsNumber,
    blocks: fields.blocks.valueAsNumber,
    samples: fields.samples.valueAsNumber,
  };
}

/** Branches run a sample, of the masks of a batch. */
const depthOf = (kept) => kept.reduce((sum, block) => sum + mean(block.map(Number)), 0);

function showDepths(settings, rates, kept) {
  const steps = settings.step < recentSteps ? Number(settings.step) + 1 : recentSteps;
  const recent = Array.from({ length: steps }, (_, back) => {
    return depthOf(masks.draw({ ...settings, step: settings.step - BigInt(back) }));
  });
  const of = ` of ${settings.blocks}`;
  byId("expected").textContent = rates.reduce((sum, rate) => sum + 1 - rate, 0).toFixed(2) + of;
  byId("actual").textContent = depthOf(kept).toFixed(2) + of;
  byId("recentName").textContent = steps === 1 ? "Mean depth of the last step" : `Mean depth of the last ${steps} steps`;
  byId("recent").textContent = mean(recent).toFixed(2) + of;
}

/** A block's card: its number, rate, how many samples keep it, and both as a bar. */
function card(rate, kept, block) {
  const count = kept.filter(Boolean).length;
  const bar = make("span", { class: "bar" }, make("i", {}), make("u", {}));
  bar.firstChild.style.width = `${(100 * count) / kept.length}%`;
  bar.lastChild.style.left = `${100 * (1 - rate)}%`;
  return make("th", { scope: "col", class: count === 0 ? "skipped" : "" },
    make("div", { class: "card" }, make("strong", {}, `block ${block}`), `p ${rate.toFixed(3)}`, make("br", {}),
      `${count}/${kept.length} kept`, bar));
}

function cell(isKept, block, sample) {
  const element = make("td", { class: `cell ${isKept ? "kept" : "dropped"}`, tabindex: -1,
    "aria-label": isKept ? "kept" : "dropped" }, make("b", {}, isKept ? "F" : ""));
  element.dataset.block = block;
  element.dataset.sample = sample;
  return element;
}

function showBatch(rates, kept) {
  const samples = kept[0].map((_, sample) => kept.map((block) => block[sample]));
  const rows = samples.map((blocks, sample) => make("tr", {},
    make("th", { scope: "row" }, `sample ${sample}`),
    ...blocks.map((isKept, block) => cell(isKept, block, sample)),
    make("td", {}, `${blocks.filter(Boolean).length} run`)));
  byId("batch").replaceChildren(
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "x →"), ...rates.map((rate, i) => card(rate, kept[i], i)),
      make("th", { scope: "col" }, "→ y"))),
    make("tbody", {}, ...rows),
    make("tfoot", {}, make("tr", {}, make("th", { scope: "row" }, "evaluation"),
      ...rates.map((rate) => make("td", {}, `${(1 - rate).toFixed(3)} F`)), make("td", {}, "all run"))));
}

/** Marks the chosen cell, the one that Tab reaches, and says how its coin fell. */
function showCoin(settings, rates) {
  const { block, sample } = chosen;
  for (const other of byId("batch").querySelectorAll("[aria-selected]")) {
    other.removeAttribute("aria-selected");
    other.tabIndex = -1;
  }
  const element = cellAt(chosen);
  element.setAttribute("aria-selected", "true");
  element.tabIndex = 0;
  const position = { ...settings, block, index: masks.coinIndex(settings.method, sample) };
  const { counter, key } = masks.coinWords(position);
  const coin = masks.coin(position);
  const threshold = masks.dropThreshold(rates[block]);
  byId("coin").textContent = [
    `block ${block}, sample ${sample}, step ${settings.step}`,
    `counter  ${counter.map(hex).join(" ")}   (index, block, step low, step high << 8)`,
    `key      ${key.map(hex).join(" ")}   (seed low, seed high)`,
    `coin     ${coin}   (the first word of Philox4x32-10, its upper 24 bits)`,
    `limit    ${threshold}   (ceil(p 2^24), p = ${rates[block]})`,
    coin >= threshold ? "coin >= limit: kept" : "coin < limit: dropped",
  ].join("\n");
}

const cellAt = ({ block, sample }) => byId("batch").querySelector(`[data-block="${block}"][data-sample="${sample}"]`);

/** Draws everything anew. */
function show() {
  for (const name of ["blocks", "samples"]) fields[`${name}Shown`].value = fields[name].value;
  fields.dropRateShown.value = fields.dropRate.valueAsNumber.toFixed(2);
  const settings = readSettings();
  if (settings === null) return pause();
  const rates = masks.dropRates(settings);
  const kept = masks.draw(settings);
  const hadFocus = byId("batch").contains(document.activeElement);
  chosen = { block: Math.min(chosen.block, settings.blocks - 1), sample: Math.min(chosen.sample, settings.samples - 1) };
  showDepths(settings, rates, kept);
  showBatch(rates, kept);
  showCoin(settings, rates);
  if (hadFocus) cellAt(chosen).focus();
}

/** Goes some steps on, or back, within what a step can be. */
function go(steps) {
  const step = wholeNumber("step");
  const to = step === null ? 0n : step + steps;
  if (to < 0n || to >= limits.step) return pause();
  fields.step.value = to;
  show();
}

function pause() {
  clearInterval(timer);
  timer = null;
  byId("play").textContent = "Play";
  byId("coin").setAttribute("aria-live", "polite");
}

function play() {
  timer = setInterval(() => go(1n), intervalMs);
  byId("play").textContent = "Pause";
  byId("coin").setAttribute("aria-live", "off");  // else a screen reader would read every step
}

function choose(block, sample) {
  if (cellAt({ block, sample }) === null) return;
  chosen = { block, sample };
  const settings = readSettings();
  if (settings !== null) showCoin(settings, masks.dropRates(settings));
  cellAt(chosen).focus();
}

const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
byId("back").addEventListener("click", () => go(-1n));
byId("next").addEventListener("click", () => go(1n));
byId("play").addEventListener("click", () => (timer === null ? play() : pause()));
byId("batch").addEventListener("click", (event) => {
  const element = event.target.closest("[data-block]");
  if (element !== null) choose(Number(element.dataset.block), Number(element.dataset.sample));
});
byId("batch").addEventListener("keydown", (event) => {
  if (!(event.key in arrows) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  choose(chosen.block + arrows[event.key][0], chosen.sample + arrows[event.key][1]);
});
show();
