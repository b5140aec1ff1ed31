// OpenAI's SDK: whole and streamed, also of Azure.

import OpenAI, { AzureOpenAI } from "openai";

const MODEL = "gpt-4o-mini";
const PROMPT = "Why does the tide rise twice a day?";
const MESSAGES = [{ role: "user", content: PROMPT }];

const client = (url) => new OpenAI({ baseURL: url && `${url}/v1`, apiKey: "sk-tidecanary", maxRetries: 0 });
const azure = (url) =>
  new AzureOpenAI({ endpoint: url, apiKey: "tidecanary", apiVersion: "2024-10-21", maxRetries: 0 });

async function chat(client) {
  const answer = await client.chat.completions.create({ model: MODEL, messages: MESSAGES });
  return {
    text: answer.choices[0].message.content,
    tokens: [answer.usage.prompt_tokens, answer.usage.completion_tokens],
  };
}

async function chatStreamed(client) {
  const stream = await client.chat.completions.create({
    model: MODEL,
    messages: MESSAGES,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage;
  }
  return { text, tokens: [usage.prompt_tokens, usage.completion_tokens] };
}

export const cases = {
  chat: (url) => chat(client(url)),
  chat_streamed: (url) => chatStreamed(client(url)),
  azure: (url) => chat(azure(url)),
  azure_streamed: (url) => chatStreamed(azure(url)),

  async responses(url) {
    const answer = await client(url).responses.create({ model: MODEL, input: PROMPT });
    const { input_tokens, output_tokens } = answer.usage;
    return { text: answer.output_text, tokens: [input_tokens, output_tokens] };
  },

  async responses_streamed(url) {
    const asked = { model: MODEL, input: PROMPT, stream: true };
    let text = "";
    let usage;
    for await (const event of await client(url).responses.create(asked)) {
      if (event.type === "response.output_text.delta") text += event.delta;
      usage = event.response?.usage ?? usage;
    }
    return { text, tokens: [usage.input_tokens, usage.output_tokens] };
  },

  async embeddings(url) {
    const answer = await client(url).embeddings.create({ model: MODEL, input: PROMPT });
    return {
      text: String(answer.data[0].embedding[0]),
      tokens: [answer.usage.prompt_tokens, null],
    };
  },

  // Tries twice, and fails each time, as the simulator is told.
  async tries_again(url) {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-tidecanary", maxRetries: 1 });
    const told = { headers: { "x-sim-fault": "503" } };
    const asked = { model: MODEL, messages: MESSAGES };
    return client.chat.completions.create(asked, told).catch((error) => error.status);
  },
};
