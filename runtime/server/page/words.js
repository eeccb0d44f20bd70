// What the page says of errors and of answers.

import { Refusal } from "./api.js";

/** An error as a person needs it. */
export function plain(error) {
  if (!(error instanceof Refusal)) return `This page made a mistake: ${error.message}`;
  if (!error.tooLong || !error.numbers) return error.message;
  const { prompt_tokens: tokens, context_window: window } = error.numbers;
  return (
    `This conversation is too long for the model: it has ${tokens.toLocaleString("en")} tokens, and the window holds ` +
    `${window.toLocaleString("en")}, answer included. Edit an earlier message, start a new chat, or serve the model ` +
    "with a larger window (ingle serve --ctx)."
  );
}

/** How an answer ended, where that is worth a word. */
export function ending(choice) {
  const how = choice.ingle?.stop_detail;
  if (how === "context_window") return "The window is full: the answer ends here. Start a new chat, or edit an earlier message.";
  if (how === "max_tokens") return "The answer ends here: it has as many tokens as the settings allow.";
  return "";
}

/** What an answer cost. */
export function figures(usage, timings) {
  const rate = timings.decode_tokens_per_s;
  const words = [`${usage.completion_tokens.toLocaleString("en")} tokens`];
  if (rate) words.push(`${rate.toLocaleString("en", { maximumFractionDigits: rate < 100 ? 1 : 0 })} tokens/s`);
  const first = timings.queue_s + timings.prefill_s;
  words.push(first < 1 ? `first after ${Math.round(first * 1000)} ms` : `first after ${first.toFixed(1)} s`);
  return words.join(" · ");
}
