// One streamed answer as OpenAI's client for Node puts it together: prints what it says, as JSON. Run by test_node.py.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.LOCUM_URL}/v1`,
  apiKey: process.env.LOCUM_KEY,
  maxRetries: 0,
  timeout: 20_000,
});
const look = { type: "function", function: { name: "look", parameters: { type: "object", properties: {} } } };
const asked = { model: process.env.LOCUM_MODEL, messages: [{ role: "user", content: "hi" }], tools: [look] };
const [choice] = (await client.chat.completions.stream(asked).finalChatCompletion()).choices;
const calls = (choice.message.tool_calls ?? []).map(({ id, function: f }) => [id, f.name, JSON.parse(f.arguments)]);
console.log(JSON.stringify({ text: choice.message.content ?? "", calls, finish: choice.finish_reason }));
