// What Ollama's JavaScript client makes of a server: node ollama.mjs PACKAGES URL FIELDS, results as JSON on stdout.

import { createRequire } from "node:module";

const [packages, url, given] = process.argv.slice(2);
const { Ollama } = createRequire(`${packages}/`)("ollama");
const { messages, tools } = JSON.parse(given);
const client = new Ollama({ host: url });
const asked = { model: "fake", messages, tools };

const models = (await client.list()).models.map((model) => model.name);
const whole = await client.chat(asked);
const lines = [];
for await (const line of await client.chat({ ...asked, stream: true })) lines.push(line);
const written = [];
for await (const line of await client.generate({ model: "fake", prompt: "hi", stream: true })) written.push(line.response);
const running = (await client.ps()).models.map((model) => model.name);
const refused = await client.chat({ ...asked, model: "nobody" }).catch((error) => error);

const calls = (message) => (message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]);
console.log(
  JSON.stringify({
    models,
    running,
    whole: [whole.message.content, calls(whole.message), whole.done_reason],
    streamed: [lines.map((line) => line.message.content).join(""), lines.flatMap((line) => calls(line.message)), lines.at(-1).done_reason],
    counts: [whole.eval_count, lines.at(-1).eval_count],
    written: written.join(""),
    refused: [refused.status_code, refused.message],
  }),
);
