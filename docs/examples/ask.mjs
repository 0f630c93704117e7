// Ask Roost over NATS and print the answer as it comes: node ask.mjs "What is a roost?" [id]
//
// Needs the npm package @nats-io/transport-node. NATS_URL is the server (default nats://127.0.0.1:4222), NATS_NKEY
// the file with the client's key (default data/secrets/client.nk).
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect, createInbox, nkeyAuthenticator } from "@nats-io/transport-node";

const SILENCE_MS = 5_000; // then ask what became of the request
const seed = readFileSync(process.env.NATS_NKEY ?? "data/secrets/client.nk", "utf8").trim();
const nc = await connect({
  servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222",
  authenticator: nkeyAuthenticator(new TextEncoder().encode(seed)),
});

// The next message on the reply subject, or undefined after a silence.
async function next(message) {
  let timer;
  const silence = new Promise((resolve) => (timer = setTimeout(resolve, SILENCE_MS)));
  try {
    return await Promise.race([message, silence]);
  } finally {
    clearTimeout(timer);
  }
}

// After a silence: the answer, if there is one. What Roost does not know is asked again, under the same id.
async function missed(question, inbox) {
  let known = { error: "nobody there" };
  try {
    known = (await nc.request("roost.ask.state", JSON.stringify({ id: question.id }), { timeout: 5_000 })).json();
  } catch {
    await new Promise((resolve) => setTimeout(resolve, 1_000)); // the front door is being restarted
  }
  if (known.error) nc.publish("roost.ask", JSON.stringify(question), { reply: inbox });
  return known.reply;
}

async function ask(question) {
  const inbox = createInbox();
  const replies = nc.subscribe(inbox)[Symbol.asyncIterator]();
  nc.publish("roost.ask", JSON.stringify(question), { reply: inbox });
  let shown = "";
  let pending = replies.next();
  for (;;) {
    const message = (await next(pending))?.value;
    if (message) pending = replies.next();
    // NATS says "nobody there" with an empty message
    const event = message?.data.length ? message.json() : await missed(question, inbox);
    if (!event) continue; // still waiting or running
    if (event.finish || event.error) {
      const rest = event.text ?? "";
      console.log(rest.startsWith(shown) ? rest.slice(shown.length) : `\n${rest}`);
      return event;
    }
    if (event.place) console.error(`number ${event.place} in the queue`);
    // `at` counts Unicode characters, as Array.from does; a piece that repeats the beginning is of a new attempt
    else if (event.text && (event.at ?? 0) === Array.from(shown).length) {
      process.stdout.write(event.text);
      shown += event.text;
    }
  }
}

const [text, id = randomUUID()] = process.argv.slice(2);
const answer = await ask({ id, text, stream: true });
if (answer.error) console.error(`${answer.error.code}: ${answer.error.message}`);
process.exitCode = answer.error ? 1 : 0;
await nc.close();
