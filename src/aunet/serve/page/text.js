// A passage on the page: one element per character, inside one per unit of each stage, so that nothing is drawn twice.
// Each line of the text is a block of its own: a browser lays out anew only the block that grows. A model may never end
// a line, so a long one goes on in another block.

import { characters } from "./characters.js";

/** Unit stages with a hue of their own; what is deeper is counted and not drawn. */
export const DRAWN = 4;

/** Characters of a block: it ends at a space after so many, or anywhere after twice as many. */
const BLOCK = 1000;

const STEPS = property("--bits-bounds").map(Number);

/** The values of a property of the theme. */
export function property(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim().split(" ");
}

/** The tone of a number of bits. */
export const step = (bits) => STEPS.filter((bound) => bits >= bound).length;

export class TextView {
  /** `describe(cell)`: its label. `onPoint(cell or null)`, `onChoose(cell, byKeyboard)`: what the reader does. */
  constructor(root, { describe, onPoint, onChoose }) {
    Object.assign(this, { root, describe, onPoint, onChoose });
    this.clear();
    root.addEventListener("pointerover", (event) => onPoint(cellOf(event.target)));
    root.addEventListener("pointerleave", () => onPoint(null));
    root.addEventListener("focusin", (event) => onPoint(cellOf(event.target)));
    root.addEventListener("focusout", () => onPoint(null));
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("click", (event) => {
      const cell = cellOf(event.target);
      if (!cell) return;
      this.#move(cell);
      onChoose(cell, false);
    });
  }

  clear() {
    this.cells = [];
    this.current = null;
    this.complete = false;
    this.root.replaceChildren();
  }

  /** Draw a passage from its beginning. `open`: more bytes follow. The focus stays at its byte. */
  show(passage, open) {
    const focused = this.root.contains(document.activeElement);
    const at = this.current?.start;
    this.clear();
    this.passage = passage;
    this.depth = Math.min(passage.stages - 1, DRAWN);
    this.root.style.setProperty("--depth", this.depth);
    this.tones = Array(this.depth).fill(0);
    /** Units that are not complete, from the deepest stage on: {hue, tone, parts}, a part for each line they are in. */
    this.units = [];
    this.line = null;
    this.lineFrom = 0;
    this.page = document.createDocumentFragment();
    this.grow(open);
    this.root.append(this.page);
    this.page = this.root;
    if (at !== undefined && this.cells.length) this.#rove(this.at(at));
    if (focused) this.current?.element.focus({ preventScroll: true });
  }

  /** Draw what the passage has gained, and its end if no more bytes follow. */
  grow(open) {
    const { passage, cells } = this;
    for (const cell of characters(passage.bytes, cells.at(-1)?.end ?? 0, open)) this.#append(cell);
    if (!open && !this.complete) {
      this.complete = true;
      const size = passage.bytes.length;
      const element = document.createElement("b");
      this.#place({ start: size, end: size, text: "", shown: passage.ended ? "end" : "…", element }, this.#line());
    }
    if (!this.current && cells.length) this.#rove(cells[0]);
  }

  /** The cell that holds a byte. */
  at(byte) {
    return this.cells.findLast((cell) => cell.start <= byte) ?? this.cells[0];
  }

  #append(cell) {
    const { levels, bits, given } = this.passage;
    const level = Math.min(Math.max(...levels.slice(cell.start, cell.end)), this.depth);
    const cost = sum(bits.slice(cell.start, cell.end));
    const classes = [];
    if (cost !== null) classes.push(`h${step(cost)}`);
    if (cell.text !== cell.shown && cell.text !== "\n") classes.push("escape");
    if (cell.text === "\n" || cell.text === "\t") classes.push("sign");
    if (cell.start <= given && given < cell.end) classes.push("from");
    const element = document.createElement("i");
    element.className = classes.join(" ");
    this.#place({ ...cell, element }, this.#unit());
    const closed = this.units.splice(this.depth - level);
    for (const part of closed.flatMap(({ parts }) => parts)) part.classList.remove("open");
    const size = this.cells.length - this.lineFrom;
    if (cell.text === "\n" || (cell.text === " " && size >= BLOCK) || size >= 2 * BLOCK) this.line = null;
  }

  #place(cell, parent) {
    cell.index = this.cells.push(cell) - 1;
    cell.element.cell = cell;
    cell.element.textContent = cell.shown;
    parent.append(cell.element);
  }

  /** The block of the current line; units that began in another one go on in it. */
  #line() {
    if (!this.line) {
      this.line = document.createElement("div");
      this.lineFrom = this.cells.length;
      this.page.append(this.line);
      for (const unit of this.units) {
        unit.parts.at(-1).classList.add("goes-on");
        this.#part(unit);
      }
    }
    return this.line;
  }

  /** The innermost unit, opened if the last one is complete. */
  #unit() {
    const line = this.#line();
    while (this.units.length < this.depth) {
      const hue = this.depth - 1 - this.units.length;
      const unit = { hue, tone: this.tones[hue], parts: [] };
      this.tones[hue] = 1 - unit.tone;
      this.units.push(unit);
      this.#part(unit);
    }
    return this.units.at(-1)?.parts.at(-1) ?? line;
  }

  /** What a unit has in the current line. */
  #part(unit) {
    const outer = this.units[this.units.indexOf(unit) - 1];
    const part = document.createElement("u");
    part.className = `s${unit.hue} t${unit.tone} open`;
    (outer?.parts.at(-1) ?? this.line).append(part);
    unit.parts.push(part);
  }

  /** Exactly one character can be reached with the Tab key. */
  #rove(cell) {
    if (this.current) {
      for (const name of ["tabindex", "role", "aria-label"]) this.current.element.removeAttribute(name);
    }
    this.current = cell;
    cell.element.tabIndex = 0;
    cell.element.setAttribute("role", "button");
    cell.element.setAttribute("aria-label", this.describe(cell));
  }

  #move(cell) {
    this.#rove(cell);
    cell.element.focus();
  }

  /** Put the focus back on the character that had it. */
  focus() {
    if (this.current) this.#move(this.current);
  }

  #key(event) {
    const cell = cellOf(event.target);
    if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
    const { cells } = this;
    const goals = {
      ArrowLeft: () => cells[cell.index - 1],
      ArrowRight: () => cells[cell.index + 1],
      ArrowUp: () => this.#beside(cell, -1),
      ArrowDown: () => this.#beside(cell, 1),
      Home: () => cells[0],
      End: () => cells.at(-1),
    };
    if (event.key in goals) this.#move(goals[event.key]() ?? cell);
    else if (event.key === "Enter" || event.key === " ") this.onChoose(cell, true);
    else return;
    event.preventDefault();
  }

  /** The nearest cell of the line above (-1) or below (1). */
  #beside(cell, direction) {
    const here = cell.element.getClientRects()[0];
    let best = null;
    let line = null;
    for (let k = cell.index + direction; this.cells[k]; k += direction) {
      const there = this.cells[k].element.getClientRects()[0];
      const below = Math.abs(there.top - here.top) > here.height / 2;
      if (!below) continue;
      line ??= there.top;
      if (Math.abs(there.top - line) > here.height / 2) break;
      const distance = Math.abs(there.left - here.left);
      if (!best || distance <= best.distance) best = { distance, cell: this.cells[k] };
    }
    return best?.cell;
  }
}

const cellOf = (target) => target.closest("i, b")?.cell ?? null;

/** Null if any part is unknown. */
export function sum(values) {
  return values.includes(null) ? null : values.reduce((total, value) => total + value, 0);
}
