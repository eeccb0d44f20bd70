// What OpenAI's JavaScript client makes of a server: node openai.mjs PACKAGES URL FIELDS, results as JSON on stdout.

import { createRequire } from "node:module";

const [packages, url, given] = process.argv.slice(2);
const OpenAI = createRequire(`${packages}/`)("openai");
const { messages, tools, flatTools } = JSON.parse(given);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
const asked = { model: "fake", messages, tools };

const models = [];
for await (const model of client.models.list()) models.push(model.id);
const whole = (await client.chat.completions.create(asked)).choices[0];
const stream = client.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
const streamed = (await stream.finalChatCompletion()).choices[0];
const usage = await stream.totalUsage();

const response = await client.responses.create({ model: "fake", input: "hi", tools: flatTools });
const events = client.responses.stream({ model: "fake", input: "hi", tools: flatTools });
const kinds = [];
for await (const event of events) kinds.push(event.type);
const finished = await events.finalResponse();
const results = finished.output
  .filter((item) => item.type === "function_call")
  .map((item) => ({ type: "function_call_output", call_id: item.call_id, output: "42" }));
const next = await client.responses
  .stream({ model: "fake", input: results, previous_response_id: finished.id, tools: flatTools })
  .finalResponse();

const refused = await client.chat.completions.create({ ...asked, model: "nobody" }).catch((error) => error);
const first = await client.chat.completions.create({ ...asked, tools: undefined, stream: true });
for await (const chunk of first) if (chunk.choices[0]?.delta.content) break; // leaving the loop gives the answer up

const calls = (message) => (message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]);
const items = (answer) => answer.output.filter((i) => i.type === "function_call").map((i) => [i.name, i.arguments]);
console.log(
  JSON.stringify({
    models,
    whole: [whole.message.content, calls(whole.message), whole.finish_reason],
    streamed: [streamed.message.content, calls(streamed.message), streamed.finish_reason],
    completionTokens: usage.completion_tokens,
    response: items(response),
    finished: items(finished),
    next: [next.status, next.previous_response_id === finished.id],
    lastKind: kinds.at(-1),
    refused: [refused.status, refused.code, refused.param],
  }),
);
