// The server's API, as this page uses it: the same routes, keys and errors as every other client.

const KEY = "ingle.key";

/** What the server has against a request, or why there was no answer. */
export class Refusal extends Error {
  constructor(message, status = 0, details = {}) {
    super(message);
    this.status = status;
    this.code = details.code ?? "";
    this.numbers = details.ingle ?? null;
  }

  get locked() {
    return this.status === 401;
  }

  /** A prompt that is too long for the window, with its numbers. */
  get tooLong() {
    return this.code === "context_length_exceeded";
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "",
  set(value, remember) {
    sessionStorage.setItem(KEY, value);
    if (remember) localStorage.setItem(KEY, value);
    else localStorage.removeItem(KEY);
  },
};

/** The models that are here. */
export async function models() {
  const response = await ask("/v1/models");
  return (await response.json()).data;
}

/** The chunks of an answer as they arrive. `signal` gives it up, on the server too. */
export async function* chat(body, signal) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  let ended = false;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") {
      ended = true;
      continue;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal(chunk.error.message, response.status, chunk.error);
    yield chunk;
  }
  if (!ended) throw new Refusal("The connection ended before the answer did.");
}

/** The data of server-sent events. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
    }
  }
}

async function ask(path, settings = {}) {
  const headers = { ...settings.headers };
  const value = key.get();
  if (value) headers.Authorization = `Bearer ${asBytes(value)}`;
  let response;
  try {
    response = await fetch(path, { ...settings, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  const details = answer.error ?? {};
  throw new Refusal(details.message ?? `The server answered ${response.status}.`, response.status, details);
}

/** A header carries bytes: those of UTF-8, which is how the server compares keys. */
function asBytes(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}
