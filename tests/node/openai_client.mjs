// The official npm client against Roost: prints one JSON line with what it saw.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.ROOST_URL, apiKey: process.env.ROOST_KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "hello small world" }];
const seen = {};

const whole = await client.chat.completions.create({ model: "echo", messages });
seen.text = whole.choices[0].message.content;
seen.tokens = whole.usage.total_tokens;
seen.request = whole._request_id;

const stream = await client.chat.completions.create({
  model: "slow",
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
seen.streamed = "";
for await (const chunk of stream) {
  seen.streamed += chunk.choices[0]?.delta?.content ?? "";
  seen.usage = chunk.usage ?? seen.usage;
}

seen.completed = (await client.completions.create({ model: "echo", prompt: "once upon" })).choices[0].text;
seen.models = (await client.models.list()).data.map((model) => model.id);

for (const [name, request] of Object.entries({
  unknown: { model: "gpt-9", messages },
  bad: { model: "echo", messages, n: 2 },
})) {
  try {
    await client.chat.completions.create(request);
  } catch (error) {
    seen[name] = { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}

const stopping = await client.chat.completions.create({
  model: "slow",
  messages: [{ role: "user", content: Array.from({ length: 400 }, (_, i) => `word${i}`).join(" ") }],
  stream: true,
});
for await (const chunk of stopping) {
  if (chunk.choices[0]?.delta?.content) {
    seen.stopped = chunk.id;
    break; // leaves the connection, which cancels the generation
  }
}
console.log(JSON.stringify(seen));
