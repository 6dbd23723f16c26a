// The playground: a prompt, what the model makes of it, and every other way it could have gone.

import { complete, inspect, models, setKey } from "./api.js";
import { characters, decode, encode, hex } from "./characters.js";
import { choices, describe, make, percent, readout } from "./detail.js";
import { count, group, summarise } from "./legend.js";
import { END, Passage } from "./passage.js";
import { TextView } from "./text.js";

const ALTERNATIVES = 5;
const $ = (id) => document.getElementById(id);

/** The text on the page, the ones before it, and what is running: an AbortController or null. */
let passage = new Passage([], { rule: "", stages: 1 });
const earlier = [];
let running = null;
/** What the server says of its model. */
let facts = null;
/** Where alternatives are shown: {cell, at}, or null. */
let picked = null;
let pointed = null;

const view = new TextView($("text"), {
  describe: (cell) => describe(passage, cell),
  onPoint: point,
  onChoose: (cell, byKeyboard) => pick(cell, cell.start, byKeyboard),
});

// Asking the model

/** Let the model go on behind a passage. */
async function write(start) {
  const seed = number("seed") ?? crypto.getRandomValues(new Uint32Array(1))[0];
  const fine = await run("writing", async (signal) => {
    begin(start, facts?.max_prompt_bytes);
    const since = performance.now();
    const size = start.bytes.length;
    // How the given bytes are read is for the eye: where that fails the model still writes.
    const reading = read(start, signal).catch(fail);
    for await (const choice of complete(request(start.bytes, seed), signal)) {
      take(start, choice);
      drawSoon();
    }
    const gained = start.bytes.length - size;
    const speed = Math.round((1000 * gained) / (performance.now() - since));
    await reading;
    return `${count(gained, "byte")}${start.ended ? ", then the end" : ""}: ${group(speed)} bytes/s, seed ${seed}`;
  });
  if (fine && passage === start) await readAll();
}

/** Only look at a passage. */
async function look(start) {
  await run("reading", async (signal) => {
    begin(start, facts?.max_scored_bytes);
    await read(start, signal);
    return `${count(start.bytes.length, "byte")} read`;
  });
}

/** Units by the chosen rule, and what the model makes of every byte and of the end. */
async function readAll() {
  await run(null, (signal) => read(passage, signal));
}

/** Ask what is known of a passage. */
async function read(start, signal) {
  const body = { text: given(start.bytes), splitter: rule(), alternatives: ALTERNATIVES };
  const found = await inspect(body, signal);
  start.learn(found);
  if (passage === start) draw(true);
}

/** One thing at a time: whatever runs is stopped first. False if it failed; why is one line on the page. */
async function run(name, work) {
  halt();
  const own = Object.assign(new AbortController(), { named: name !== null });
  running = own;
  if (name) {
    $("error").textContent = "";
    $("status").textContent = `${name} ...`;
  }
  busy(name === "writing");
  let message = "";
  try {
    message = await work(own.signal);
  } catch (error) {
    if (error.name === "AbortError") message = "stopped";
    else fail(error);
    own.abort(); // what else was asked for it, such as how the given bytes are read
  }
  if (running !== own) return true;
  running = null;
  busy(false);
  draw(false);
  if (name) $("status").textContent = message;
  return message !== "";
}

/** Stop what runs, for something else: nothing more is said of it. */
function halt() {
  if (running?.named) $("status").textContent = "";
  running?.abort();
  running = null;
}

function fail(error) {
  if (error.name === "AbortError") return;
  $("error").textContent = error.message;
  $("error").scrollIntoView({ block: "nearest" });
}

function request(bytes, seed) {
  const settings = { max_tokens: number("max-bytes"), temperature: number("temperature"), top_p: number("top-p") };
  return { prompt: given(bytes), seed, logprobs: ALTERNATIVES, ...settings };
}

/** Bytes as the server takes them: text, or numbers where they are not UTF-8. */
const given = (bytes) => decode(bytes) ?? bytes;

/** The rule that the reader chose, null for the model's. */
const rule = () => ($("rule").value === "other" ? $("other-rule").value.trim() : $("rule").value) || null;

/** The number in a field, undefined if there is none. */
const number = (id) => ($(id).value === "" ? undefined : Number($(id).value));

/** Add what the model has written. Under another rule its levels are not known before the whole text is read. */
function take(start, { aunet, logprobs, finish_reason: reason }) {
  aunet.bytes.forEach((byte, k) => {
    // Sorted anew: JavaScript puts the keys that are digits first.
    const likeliest = Object.entries(logprobs.top_logprobs[k]).map(([token, value]) => [id(token), Math.exp(value)]);
    likeliest.sort(([, one], [, other]) => other - one);
    start.append(byte, rule() ? 0 : aunet.levels[k], -logprobs.token_logprobs[k] / Math.LN2, likeliest);
  });
  if (reason === "stop") start.ended = true;
}

/** The id of a token as the server writes it: a character of ASCII, bytes:\xNN, or the end. */
function id(token) {
  if (token.startsWith("bytes:\\x")) return parseInt(token.slice(8), 16);
  return token.length === 1 ? token.charCodeAt(0) : END;
}

// Drawing

let timer = 0;
let frame = 0;
/** Milliseconds before the next drawing. A block of the text is laid out whole whenever it grows. */
let rest = 0;
const RESTS = 3;

/** Draw what has come, at most once for each frame and in a quarter of the time, as the page must hear its reader. */
function drawSoon() {
  timer ||= setTimeout(() => (frame = requestAnimationFrame(follow)), rest);
}

/** Draw; an end that could be seen stays in view. */
function follow() {
  const since = performance.now();
  const followed = covered($("text")) <= 0;
  draw(false);
  const over = covered($("text"));
  if (followed && over > 0) scrollBy(0, over + 24);
  rest = RESTS * (performance.now() - since);
}

/** `anew`: everything, because more is known of what stands there. */
function draw(anew) {
  clearTimeout(timer);
  cancelAnimationFrame(frame);
  timer = 0;
  if (anew) {
    point(null);
    view.show(passage, writing());
  } else view.grow(writing());
  summarise(passage, view.cells.length - view.complete);
}

const writing = () => running !== null && $("text").classList.contains("writing");

/** Begin another passage, if it is not too long to be answered and drawn; the one before can come back. */
function begin(start, most = Infinity) {
  const size = start.bytes.length;
  if (size > most) throw new Error(`the text has ${group(size)} bytes; at most ${group(most)} are possible`);
  if (passage.bytes.length) earlier.push(passage);
  show(start);
}

/** Put a passage on the page. */
function show(start) {
  passage = start;
  rest = 0;
  picked = null;
  $("choices").hidden = true;
  $("before").hidden = true;
  $("reading").hidden = $("detail").hidden = false;
  draw(true);
  if ($("text").getBoundingClientRect().top > floor() - 80) $("reading").scrollIntoView();
}

function busy(writes) {
  const focused = document.activeElement;
  $("text").classList.toggle("writing", writes);
  $("reading").setAttribute("aria-busy", String(running !== null));
  $("write").hidden = writes;
  $("stop").hidden = !writes;
  $("back").hidden = !earlier.length;
  // The focus of a button that goes would be lost; where the page has been scrolled to stays.
  if (focused?.hidden) $(writes ? "stop" : "write").focus({ preventScroll: true });
}

// One character

function point(cell) {
  pointed = cell;
  $("readout").replaceChildren(...readout(passage, pointed ?? picked?.cell ?? null));
}

/** Show what else could stand at a byte of a cell. */
async function pick(cell, at, byKeyboard) {
  picked = { cell, at };
  if (!passage.alternatives[at] && !writing()) {
    $("error").textContent = "";
    await readAll();
  }
  if (picked?.at !== at) return;
  showChoices();
  if (byKeyboard) $("choices").querySelector("ol button")?.focus();
}

function showChoices() {
  const { cell, at } = picked;
  const where = at ? `after “${tail(at)}”` : "at the beginning";
  const title = make("h2", "", "What could stand here", make("small", "", where));
  const tabs = passage.bytes.slice(cell.start, cell.end).map((byte, k) => {
    const tab = button("tab", () => pick(cell, cell.start + k, true), hex(byte));
    tab.setAttribute("aria-pressed", String(cell.start + k === at));
    return tab;
  });
  const list = choices(passage, at).map((choice) => {
    const option = button(
      choice.actual ? "actual" : "",
      () => choose(at, choice.id),
      make("code", "", choice.name),
      make("span", "note", choice.actual ? "stands here" : choice.note),
      make("span", "share", percent(choice.probability)),
    );
    option.style.setProperty("--share", choice.probability);
    if (choice.actual) option.setAttribute("aria-current", "true");
    return make("li", "", option);
  });
  const draw = at === passage.bytes.length ? "Let the model go on" : "Let the model draw again";
  list.push(make("li", "", button("draw", () => choose(at, null), draw)));
  $("choices").replaceChildren(
    button("quiet close", unpick, "Close"),
    title,
    ...(tabs.length > 1 ? [make("div", "tabs", "byte ", ...tabs)] : []),
    make("ol", "", ...list),
    make("p", "hint", "Choose one, and the model goes on from there."),
  );
  $("choices").hidden = false;
  point(pointed);
  const over = covered(view.at(cell.start).element) + 16;
  if (over > 16) scrollBy(0, over);
}

/** Where what can be seen ends: on a narrow page the panel lies over the text. */
function floor() {
  const lies = getComputedStyle($("detail")).position === "fixed";
  return lies ? $("detail").getBoundingClientRect().top : innerHeight;
}

/** How far an element goes below that. */
const covered = (element) => element.getBoundingClientRect().bottom - floor();

function button(className, onClick, ...children) {
  const element = Object.assign(make("button", className, ...children), { type: "button" });
  element.addEventListener("click", onClick);
  return element;
}

/** The last characters before a byte. */
function tail(at) {
  // Sixteen of four bytes each, and what may be left of one before them.
  const bytes = passage.bytes.slice(Math.max(at - 67, 0), at);
  return [...characters(bytes, 0, false)].slice(-16).map(({ shown }) => shown).join("");
}

function unpick() {
  const inside = $("choices").contains(document.activeElement);
  picked = null;
  $("choices").hidden = true;
  point(pointed);
  if (inside) view.focus();
}

/** Put an id at a byte, or none, and let the model go on. */
function choose(at, chosen) {
  const start = passage.cut(at, chosen === null || chosen === END ? [] : [chosen]);
  start.ended = chosen === END;
  if (start.ended) look(start);
  else write(start);
  view.focus();
}

// The page

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  write(prompted());
});
$("read").addEventListener("click", () => look(prompted()));
$("stop").addEventListener("click", () => running?.abort());
$("back").addEventListener("click", () => {
  halt();
  $("error").textContent = "";
  show(earlier.pop());
  busy(false);
  readAll();
});
$("shades").addEventListener("change", (event) => {
  $("text").dataset.shade = event.target.value;
});
$("rule").addEventListener("change", () => {
  const other = $("rule").value === "other";
  $("other-rule").hidden = !other;
  if (other) $("other-rule").focus();
  else resplit();
});
$("other-rule").addEventListener("change", resplit);
$("key").addEventListener("change", () => {
  setKey($("key").value);
  greet();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
  else if (event.key === "Escape" && writing()) running.abort();
  else if (event.key === "Escape" && picked) unpick();
  else return;
  event.preventDefault();
});

/** What stands in the prompt, to be split as the text before. */
function prompted() {
  return new Passage(encode($("prompt").value), passage);
}

/** While the model writes this waits for its end. */
function resplit() {
  if (writing()) return;
  $("error").textContent = "";
  if (!$("reading").hidden) readAll();
}

/** Light or dark: the system's, until the reader chooses. */
const system = matchMedia("(prefers-color-scheme: dark)");

function scheme(chosen) {
  const root = document.documentElement;
  if (chosen) root.dataset.scheme = chosen;
  const dark = (root.dataset.scheme ?? (system.matches ? "dark" : "light")) === "dark";
  $("scheme").setAttribute("aria-pressed", String(dark));
  return dark;
}
$("scheme").addEventListener("click", () => scheme(scheme() ? "light" : "dark"));
system.addEventListener("change", () => scheme());

/** Name the model. */
async function greet() {
  try {
    const [model] = await models();
    facts = model.aunet;
    if (!passage.rule) [passage.rule, passage.stages] = [facts.splitter, facts.stages];
    $("model").textContent = model.id;
    document.title = `${model.id}, aunet playground`;
    const stages = ["bytes", ...facts.splitter.split("+").filter(Boolean)];
    $("stages").textContent = `${count(stages.length, "stage")}: ${stages.join(", then ")}`;
    $("error").textContent = "";
  } catch (error) {
    $("model").textContent = "Playground";
    fail(error);
  }
}

scheme();
view.show(passage, false);
point(null);
greet();
