// A session of OpenAI's client for Node: prints what it found, as JSON. Run by test_node.py.
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const settings = { baseURL: `${process.env.LOCUM_URL}/v1`, maxRetries: 0, timeout: 10_000 };
const client = new OpenAI({ ...settings, apiKey: process.env.LOCUM_KEY });
const model = process.env.LOCUM_MODEL;
const user = (content) => ({ role: "user", content });
const Weather = z.object({ city: z.string(), celsius: z.number() });
const thermometer = {
  type: "function",
  function: {
    name: "thermometer",
    description: "The temperature in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    parse: JSON.parse,
    function: ({ city }) => `4 degrees in ${city}`,
  },
};

async function caught(promise) {
  try {
    await promise;
  } catch (error) {
    const known = { AuthenticationError, BadRequestError, NotFoundError };
    const name = Object.keys(known).find((name) => error instanceof known[name]) ?? String(error);
    return { name, status: error.status, code: error.code };
  }
  return null;
}

const chat = client.chat.completions;
const { data: first, response } = await chat.create({ model, messages: [user("hi")] }).withResponse();
const spoken = first.choices[0].message;
const second = await chat.create({ model, messages: [user("hi"), spoken, user("and?")] });

let streamed = "";
for await (const chunk of await chat.create({ model, messages: [user("hi")], stream: true })) {
  streamed += chunk.choices[0]?.delta.content ?? "";
}
const helped = chat.stream({ model, messages: [user("hi")], stream_options: { include_usage: true } });
const whole = await helped.finalChatCompletion();

const asked = { model, messages: [user("the weather in Oslo?")], response_format: zodResponseFormat(Weather, "weather") };
const parsed = (await chat.parse(asked)).choices[0].message.parsed;
const tooled = { model, messages: [user("how cold is it?")], tools: [thermometer] };
const told = await chat.runTools(tooled).finalContent();
const toldInStream = await chat.runTools({ ...tooled, stream: true }).finalContent();

const { responses } = client;
const kept = await responses.create({ model, input: "hi" });
const next = await responses.create({ model, input: "and?", previous_response_id: kept.id });
let response_text = "";
for await (const event of await responses.create({ model, input: "hi", stream: true })) {
  if (event.type === "response.output_text.delta") response_text += event.delta;
}
const format = { format: zodTextFormat(Weather, "weather") };
const shaped = await responses.stream({ model, input: "the weather in Oslo?", text: format }).finalResponse();
const embedded = await client.embeddings.create({ model: "vectors", input: ["four"] });

const stranger = new OpenAI({ ...settings, apiKey: "sk-wrong" });
const errors = [
  await caught(stranger.chat.completions.create({ model, messages: [user("hi")] })),
  await caught(chat.create({ model: "gpt-nothing", messages: [user("hi")], stream: true })),
  await caught(chat.create({ model, messages: [user("too long")] })),
];
const models = [];
for await (const { id } of client.models.list()) models.push(id);

console.log(
  JSON.stringify({
    tier: response.headers.get("x-locum-tier"),
    turns: [spoken.content, second.choices[0].message.content],
    streamed,
    helped: whole.choices[0].message.content,
    usage: whole.usage.total_tokens,
    parsed,
    told: [told, toldInStream],
    responses: [kept.output_text, next.output_text, response_text],
    shaped: shaped.output_parsed,
    embedded: embedded.data[0].embedding,
    errors,
    models,
  }),
);
