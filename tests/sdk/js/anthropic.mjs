// Anthropic's SDK: whole and streamed.

import Anthropic from "@anthropic-ai/sdk";

const ASKED = {
  model: "claude-opus-4-6",
  max_tokens: 50,
  messages: [{ role: "user", content: "Why does the tide rise twice a day?" }],
};

const client = (url) => new Anthropic({ baseURL: url, apiKey: "sk-tidecanary", maxRetries: 0 });

const told = (answer) => ({
  text: answer.content[0].text,
  tokens: [answer.usage.input_tokens, answer.usage.output_tokens],
});

export const cases = {
  messages: async (url) => told(await client(url).messages.create(ASKED)),
  messages_streamed: async (url) => told(await client(url).messages.stream(ASKED).finalMessage()),
};
