// Bytes as characters: where each begins and ends, and how it is written where it must neither vanish nor act.

const SIGNS = { "\n": "↵", "\t": "⇥" };
const SHAPELESS = /[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}]/u;

/** Number of bytes of the character at `at`: 1 also for a byte that is part of none, 0 if it is not complete yet. */
export function sizeAt(bytes, at) {
  const lead = bytes[at];
  const size = lead < 0xc2 || lead > 0xf4 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (let k = 1; k < size; k += 1) {
    if (at + k >= bytes.length) return 0;
    const [low, high] = (k === 1 && SECOND[lead]) || [0x80, 0xbf];
    if (bytes[at + k] < low || bytes[at + k] > high) return 1;
  }
  return size;
}

/** Second bytes that do not make a longer form, a surrogate, or a number beyond Unicode. */
const SECOND = { 0xe0: [0xa0, 0xbf], 0xed: [0x80, 0x9f], 0xf0: [0x90, 0xbf], 0xf4: [0x80, 0x8f] };

/** The characters from `at` on, {start, end, text, shown}. `open`: more bytes follow, so an incomplete one waits. */
export function* characters(bytes, at, open) {
  while (at < bytes.length) {
    const size = sizeAt(bytes, at);
    if (size === 0 && open) return;
    yield character(bytes, at, at + (size || 1));
    at += size || 1;
  }
}

/** The character of the bytes [start, end), or of one byte that is part of none: its text is then null. */
export function character(bytes, start, end) {
  const part = bytes.slice(start, end);
  const text = sizeAt(part, 0) === part.length && (part.length > 1 || part[0] < 0x80) ? decode(part) : null;
  return { start, end, text, shown: text === null ? `\\x${hex(part[0])}` : visible(text) };
}

/** How a character is written: itself, a sign, or an escape. */
export function visible(text) {
  if (text in SIGNS) return SIGNS[text];
  if (text === " " || !SHAPELESS.test(text)) return text;
  const code = text.codePointAt(0);
  if (code < 0x80) return `\\x${hex(code)}`;
  return code <= 0xffff ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
}

/** Where a character that the bytes [0, end) leave incomplete begins; `end` if there is none. */
export function incomplete(bytes, end) {
  for (let at = Math.max(end - 3, 0); at < end; at += 1) {
    if (sizeAt(bytes.slice(at, end), 0) === 0) return at;
  }
  return end;
}

/** The text of bytes, null if they are not valid UTF-8. */
export function decode(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return null;
  }
}

/** UTF-8 of a text; lone surrogates become U+FFFD. */
export const encode = (text) => new TextEncoder().encode(text);

/** Hex digits, two of them by default. */
export const hex = (value, digits = 2) => value.toString(16).padStart(digits, "0");
