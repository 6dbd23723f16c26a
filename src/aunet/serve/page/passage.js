// A text as the model reads it: bytes with their levels, bits and alternatives. A unit of stage s ends at each byte
// whose level is at least s - 1.

/** The id that ends a text. */
export const END = 257;

export class Passage {
  /** `bytes`: what the model is given. Nothing is known of them yet. `rule`, `stages`: how they will be split. */
  constructor(bytes, { rule, stages }) {
    this.bytes = Array.from(bytes);
    this.given = bytes.length;
    this.levels = Array(bytes.length).fill(0);
    this.bits = Array(bytes.length).fill(null);
    /** Per byte, and last for what could follow: [[id, probability], ...] from the likeliest on, or undefined. */
    this.alternatives = [];
    /** Bits of the end, if the text ends here. */
    this.endBits = null;
    /** Whether the model chose to end here. */
    this.ended = false;
    this.rule = rule;
    this.stages = stages;
  }

  /** The first `at` bytes with what is known of them, followed by the given ones. */
  cut(at, bytes = []) {
    const cut = new Passage([...this.bytes.slice(0, at), ...bytes], this);
    cut.levels.splice(0, at, ...this.levels.slice(0, at));
    cut.bits.splice(0, at, ...this.bits.slice(0, at));
    cut.alternatives = this.alternatives.slice(0, at + 1);
    bytes.forEach((byte, k) => {
      const found = k === 0 && cut.alternatives[at]?.find(([id]) => id === byte);
      if (found) cut.bits[at] = -Math.log2(found[1]);
    });
    return cut;
  }

  /** A byte that the model has written. */
  append(byte, level, bits, alternatives) {
    this.alternatives[this.bytes.length] = alternatives;
    this.bytes.push(byte);
    this.levels.push(level);
    this.bits.push(bits);
  }

  /** What /v1/inspect says of the first `found.bytes.length` bytes. */
  learn(found) {
    const size = found.bytes.length;
    [this.rule, this.stages] = [found.splitter, found.stages];
    found.levels.forEach((level, i) => (this.levels[i] = level));
    if (found.bits) {
      found.bits.slice(0, size).forEach((bits, i) => (this.bits[i] = bits));
      if (size === this.bytes.length) this.endBits = found.bits[size];
    }
    found.alternatives?.forEach((ids, i) => (this.alternatives[i] ??= ids));
  }

  /** Number of complete units of a stage. */
  units(stage) {
    return this.levels.reduce((count, level) => count + (level >= stage - 1), 0);
  }

  /** Bits of the bytes, and of the end if it is one, over the bytes; null if any is unknown. */
  get bitsPerByte() {
    if (!this.bytes.length || this.bits.includes(null)) return null;
    const end = this.given === this.bytes.length || this.ended ? this.endBits ?? 0 : 0;
    return (this.bits.reduce((sum, bits) => sum + bits, 0) + end) / this.bytes.length;
  }
}
