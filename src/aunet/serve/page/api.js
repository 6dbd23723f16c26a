// Requests to the server that sent the page. Every failure is an Error whose message is one line for people.

/** Forget the key with the page: it is kept here and nowhere else. */
let key = "";

export function setKey(value) {
  key = value.trim();
}

/** The models of the server. */
export async function models(signal) {
  return (await whole(await request("v1/models", { signal }))).data;
}

/** Levels, bits and alternatives of a text; see /v1/inspect. */
export async function inspect(body, signal) {
  return whole(await post("v1/inspect", body, signal));
}

/** The choices of a streamed completion as they come; see /v1/completions. */
export async function* complete(body, signal) {
  const response = await post("v1/completions", { ...body, stream: true }, signal);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(oneLine(chunk.error.message));
    if (chunk.choices?.length) yield chunk.choices[0];
  }
  throw new Error(BROKEN);
}

function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", body: JSON.stringify(body), headers, signal });
}

async function request(path, options) {
  if (!/^[ -~]*$/.test(key)) throw new Error("API key: only printable ASCII characters fit into a header");
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server cannot be reached");
  }
  if (response.ok) return response;
  const found = await response.json().catch(() => null);
  throw new Error(oneLine(found?.error?.message ?? `the server answered ${response.status}`));
}

/** The JSON of an answer. */
function whole(response) {
  return response.json().catch(broken);
}

/** The data of server-sent events. Here each is one line. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(broken);
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

function broken(error) {
  throw error.name === "AbortError" ? error : new Error(BROKEN);
}

const BROKEN = "the answer broke off: the connection to the server is closed";

const oneLine = (text) => text.replace(/\s+/g, " ").trim();
