// What is known of one character, and what else could stand at one of its bytes.

import { characters, hex, incomplete, sizeAt, visible } from "./characters.js";
import { sum } from "./text.js";
import { END } from "./passage.js";

/** What has no shape of its own. */
const NAMES = { " ": "space", "\n": "line break", "\t": "tab" };

/** Everything about a cell of a passage, as data. */
function facts(passage, cell) {
  const bytes = passage.bytes.slice(cell.start, cell.end);
  const level = Math.max(0, ...passage.levels.slice(cell.start, cell.end));
  const isEnd = cell.start === cell.end;
  const each = isEnd ? [passage.endBits] : passage.bits.slice(cell.start, cell.end);
  const closes = Array.from({ length: level }, (_, k) => k + 2);
  return {
    isEnd,
    bytes,
    each,
    bits: sum(each),
    name: isEnd ? "end" : cell.shown === " " ? "␣" : cell.shown,
    code: cell.text ? `U+${hex(cell.text.codePointAt(0), 4).toUpperCase()}` : "not a character",
    place: isEnd
      ? passage.ended ? "the model ended the text here" : "the text may go on here; these are the bits of its end"
      : level ? `ends a unit of stage ${closes.join(" and ")}` : passage.stages > 1 ? "inside a unit" : "",
  };
}

/** One sentence for those who hear the page. */
export function describe(passage, cell) {
  const { isEnd, bytes, bits, name, place } = facts(passage, cell);
  const said = NAMES[cell.text] ?? name;
  const digits = bytes.map((byte) => hex(byte)).join(" ");
  const parts = isEnd
    ? [place]
    : [said, `${bytes.length > 1 ? "bytes" : "byte"} ${digits} at ${cell.start}`, place];
  if (bits !== null) parts.push(`${bits.toFixed(2)} bits`);
  return parts.filter(Boolean).join(", ");
}

/** The lines about a cell, or a hint. */
export function readout(passage, cell) {
  if (!cell) return [make("p", "hint", "Point at a character, or use the arrow keys.")];
  const { isEnd, bytes, each, bits, name, code, place } = facts(passage, cell);
  const cost = bits === null ? "" : `${bits.toFixed(2)} bits`;
  const share = bits === null ? "" : `${percent(2 ** -bits)} likely`;
  const where = isEnd ? `after ${cell.start} bytes` : `${code} at byte ${cell.start}`;
  const list = bytes.map((byte, k) => {
    const size = bytes.length > 1 && each[k] !== null ? make("small", "", each[k].toFixed(2)) : "";
    return make("li", "", make("code", "", hex(byte)), size);
  });
  return [
    make("p", name.length > 1 ? "glyph long" : "glyph", name),
    make("p", "cost", make("strong", "", cost), make("small", "", share)),
    make("p", "where", where),
    make("ol", "bytes", ...list),
    make("p", "place", place),
  ];
}

/** The ids that could stand at byte `at`: {id, name, note, probability, actual}. */
export function choices(passage, at) {
  const found = (passage.alternatives[at] ?? []).map(([id, probability]) => ({ id, probability }));
  const end = at === passage.bytes.length;
  const actual = end ? (passage.ended ? END : null) : passage.bytes[at];
  const bits = end ? passage.endBits : passage.bits[at];
  if (actual !== null && !found.some(({ id }) => id === actual) && bits !== null) {
    found.push({ id: actual, probability: 2 ** -bits });
  }
  return found.map((one) => ({ ...one, ...named(passage.bytes, at, one.id), actual: one.id === actual }));
}

/** How a byte that would stand at `at` is written, and what it would be. */
function named(bytes, at, id) {
  if (id === END) return { name: "end", note: "ends the text" };
  const from = incomplete(bytes, at);
  const part = [...bytes.slice(from, at), id];
  if (id < 0x80) {
    const text = String.fromCharCode(id);
    return { name: text === " " ? "␣" : visible(text), note: from < at ? "breaks a character off" : NAMES[text] ?? "" };
  }
  if (sizeAt(part, 0) === 0) {
    return { name: `${hex(id)}…`, note: part.length > 1 ? "goes on in a character" : "begins a character" };
  }
  const [first] = characters(part, 0, false);
  if (first.end < part.length || first.text === null) return { name: hex(id), note: "no character" };
  return { name: visible(first.text), note: part.map((byte) => hex(byte)).join(" ") };
}

/** A share as people read it. */
export function percent(share) {
  if (share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** An element. Children that are strings are text, whatever is in them. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}
