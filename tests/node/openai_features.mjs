// The official npm client against a gateway whose model can do all: prints one JSON line with what it saw.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.ROOST_URL, apiKey: process.env.ROOST_KEY, maxRetries: 0 });
const model = "echo";
const messages = [{ role: "user", content: "hello small world" }];
const question = [{ role: "user", content: "How is the weather in Bonn" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const seen = {};

const first = (await client.chat.completions.create({ model, messages: question, tools })).choices[0];
const call = first.message.tool_calls[0];
seen.called = {
  reason: first.finish_reason,
  name: call.function.name,
  arguments: JSON.parse(call.function.arguments),
};
const result = { role: "tool", tool_call_id: call.id, content: "rain in Bonn" };
const second = await client.chat.completions.create({ model, messages: [...question, first.message, result], tools });
seen.result = second.choices[0].message.content;

const final = await client.chat.completions.stream({ model, messages: question, tools }).finalChatCompletion();
seen.streamedCall = final.choices[0].message.tool_calls.map((one) => ({
  name: one.function.name,
  arguments: JSON.parse(one.function.arguments),
}));

const schema = { type: "object", properties: { said: { type: "string" } }, required: ["said"] };
const response_format = { type: "json_schema", json_schema: { name: "said", strict: true, schema } };
seen.parsed = JSON.parse(
  (await client.chat.completions.create({ model, messages, response_format })).choices[0].message.content,
);

const several = await client.chat.completions.create({ model, messages, n: 2, logprobs: true, top_logprobs: 2 });
seen.answers = several.choices.map((choice) => choice.message.content);
seen.logprobs = several.choices[0].logprobs.content.map((token) => token.token).join("");
seen.streamedLogprobs = "";
for await (const chunk of await client.chat.completions.create({ model, messages, logprobs: true, stream: true })) {
  for (const token of chunk.choices[0]?.logprobs?.content ?? []) seen.streamedLogprobs += token.token;
}

seen.embedding = (await client.embeddings.create({ model, input: "a b" })).data[0].embedding;
const cut = await client.embeddings.create({ model, input: ["a", "b"], dimensions: 2 });
seen.dimensions = cut.data.map((row) => row.embedding.length);
console.log(JSON.stringify(seen));
