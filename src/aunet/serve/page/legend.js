// How long a text is, and the rows of its stages: what each is, how it is drawn, how many units it has.

import { make } from "./detail.js";
import { DRAWN, property } from "./text.js";

const $ = (id) => document.getElementById(id);

/** A whole number as people read it. */
export const group = (n) => n.toLocaleString("en");

/** So many of something. */
export const count = (n, what) => `${group(n)} ${what}${n === 1 ? "" : "s"}`;

/** Sizes of a passage of so many characters, and of the units of each stage. */
export function summarise(passage, characters) {
  const size = passage.bytes.length;
  const bits = passage.bitsPerByte;
  const own = passage.given < size ? "; the bar is where the model took over" : "";
  $("size").textContent = `${count(size, "byte")}, ${count(characters, "character")}${own}`;
  offerShades(["bits", ...Array.from({ length: passage.stages - 1 }, (_, hue) => String(hue)), "none"]);
  $("size-bits").textContent = bits === null ? "" : `${bits.toFixed(3)} bits per byte`;
  const rules = passage.rule.split("+");
  for (let stage = 2; stage <= passage.stages; stage += 1) {
    const hue = stage - 2;
    const units = passage.units(stage);
    const each = (size / Math.max(units, 1)).toFixed(2);
    $(`name-${hue}`).textContent = `Stage ${stage}: ${rules[hue]}`;
    $(`size-${hue}`).textContent = `${count(units, "unit")}, ${each} bytes per unit${hue < DRAWN ? "" : ", not drawn"}`;
  }
}

/** What is no stage. */
const NAMES = { bits: "Surprisal", none: "Nothing" };

/** One row for each value, made anew only if there are others; the chosen one is the ground of the text. */
function offerShades(values) {
  const there = [...$("shades").querySelectorAll("input")].map((input) => input.value);
  if (values.join() === there.join()) return;
  const chosen = values.includes($("text").dataset.shade) ? $("text").dataset.shade : "bits";
  const rows = values.map((value) => {
    const input = Object.assign(make("input"), { type: "radio", name: "shade", value, checked: value === chosen });
    input.disabled = Number(value) >= DRAWN;
    const name = Object.assign(make("span", "name", NAMES[value] ?? ""), { id: `name-${value}` });
    const size = Object.assign(make("small"), { id: `size-${value}` });
    if (value === "none") return make("label", "", input, name);
    return make("label", "", input, name, value === "bits" ? heat() : make("span", `line s${value}`), size);
  });
  $("shades").replaceChildren($("shades").firstElementChild, ...rows);
  $("text").dataset.shade = chosen;
}

/** The steps of bits. */
function heat() {
  return make("span", "heat", ...property("--bits-labels").map((label, step) => make("span", `h${step}`, label)));
}
