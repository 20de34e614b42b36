// A session of the Vercel AI SDK with its OpenAI provider: prints what it found, as JSON. Run by test_node.py.
// LOCUM_FORM is `chat` for chat completions; `responses`, for the API that the provider takes by default.
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, Output, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const open = (apiKey) => createOpenAI({ baseURL: `${process.env.LOCUM_URL}/v1`, apiKey });
const ours = open(process.env.LOCUM_KEY);
const named = (provider, name) => (process.env.LOCUM_FORM === "chat" ? provider.chat(name) : provider(name));
const model = named(ours, process.env.LOCUM_MODEL);
const common = { model, maxRetries: 0, abortSignal: AbortSignal.timeout(20_000) };
const tools = {
  thermometer: tool({
    description: "The temperature in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `4 degrees in ${city}`,
  }),
};

async function caught(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: APICallError.isInstance(error) ? "APICallError" : String(error), status: error.statusCode };
  }
  return null;
}

async function streamed(settings) {
  let failed;
  const stream = streamText({ ...common, ...settings, onError: ({ error }) => (failed = error) });
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  if (failed) throw failed;
  return { text: pieces.join(""), pieces: pieces.length, tokens: (await stream.totalUsage).totalTokens };
}

const hi = { role: "user", content: "hi" };
const first = await generateText({ ...common, system: "Be brief.", messages: [hi] });
const turns = [hi, ...first.response.messages, { role: "user", content: "and?" }];
const second = await generateText({ ...common, system: "Be brief.", messages: turns });
const stream = await streamed({ prompt: "stream it" });

const Weather = z.object({ city: z.string(), celsius: z.number() });
const shaped = await generateText({ ...common, prompt: "the weather in Oslo?", output: Output.object({ schema: Weather }) });
const tooled = { prompt: "how cold is it?", tools, stopWhen: stepCountIs(3) };
const told = await generateText({ ...common, ...tooled });
const toldInStream = await streamed(tooled);

const values = ["four", "eleven wide"];
const embedded = await embedMany({ model: ours.embedding("vectors"), values, maxRetries: 0 });

const errors = [
  await caught(generateText({ ...common, model: named(open("sk-wrong"), process.env.LOCUM_MODEL), prompt: "hi" })),
  await caught(generateText({ ...common, model: named(ours, "gpt-nothing"), prompt: "hi" })),
  await caught(generateText({ ...common, prompt: "too long" })),
  await caught(streamed({ prompt: "too long" })),
];

console.log(
  JSON.stringify({
    tier: first.response.headers["x-locum-tier"],
    turns: [first.text, second.text],
    usage: first.usage.totalTokens,
    stream,
    shaped: shaped.output,
    told: [told.text, toldInStream.text],
    embeddings: embedded.embeddings,
    errors,
  }),
);
