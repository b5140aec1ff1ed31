// Amazon's SDK, which speaks HTTP/2 at once, also without TLS: Converse and InvokeModel.

import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
  InvokeModelCommand,
  InvokeModelWithResponseStreamCommand,
} from "@aws-sdk/client-bedrock-runtime";

const MODEL = "anthropic.claude-3-5-sonnet-20240620-v1:0";
const PROMPT = "Why does the tide rise twice a day?";
const CONVERSE = { modelId: MODEL, messages: [{ role: "user", content: [{ text: PROMPT }] }] };
const INVOKE = {
  modelId: MODEL,
  contentType: "application/json",
  body: JSON.stringify({
    anthropic_version: "bedrock-2023-05-31",
    max_tokens: 50,
    messages: [{ role: "user", content: PROMPT }],
  }),
};

// The client that a page tells a user to write, where there is one.
const ofPage = process.env.APPLICATION_CLIENT && (await import(process.env.APPLICATION_CLIENT)).client;

// Keys are dummies: the signature goes through to the simulator, which takes any.
const client = (url, maxAttempts = 1) =>
  ofPage ||
  new BedrockRuntimeClient({
    endpoint: url,
    region: "us-east-1",
    credentials: { accessKeyId: "AKID", secretAccessKey: "tidecanary" },
    maxAttempts,
  });

const counts = (usage) => [usage.inputTokens, usage.outputTokens];
const read = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

export const cases = {
  async converse(url) {
    const answer = await client(url).send(new ConverseCommand(CONVERSE));
    return { text: answer.output.message.content[0].text, tokens: counts(answer.usage) };
  },

  async converse_streamed(url) {
    const answer = await client(url).send(new ConverseStreamCommand(CONVERSE));
    let text = "";
    let usage;
    for await (const event of answer.stream) {
      text += event.contentBlockDelta?.delta.text ?? "";
      usage = event.metadata?.usage;
    }
    return { text, tokens: counts(usage) };
  },

  async invoke(url) {
    const answer = await client(url).send(new InvokeModelCommand(INVOKE));
    const { content, usage } = read(answer.body);
    return { text: content[0].text, tokens: [usage.input_tokens, usage.output_tokens] };
  },

  async invoke_streamed(url) {
    const answer = await client(url).send(new InvokeModelWithResponseStreamCommand(INVOKE));
    let text = "";
    let metrics;
    for await (const event of answer.body) {
      const object = read(event.chunk.bytes);
      text += object.delta?.text ?? "";
      metrics = object["amazon-bedrock-invocationMetrics"];
    }
    return { text, tokens: [metrics.inputTokenCount, metrics.outputTokenCount] };
  },

  // Tries twice, and fails each time, as the simulator is told.
  async tries_again(url) {
    const impatient = client(url, 2);
    const fail = (next) => (call) => {
      call.request.headers["x-sim-fault"] = "503";
      return next(call);
    };
    impatient.middlewareStack.add(fail, { step: "build" });
    const failed = (error) => error.$metadata.httpStatusCode;
    return impatient.send(new ConverseCommand(CONVERSE)).catch(failed);
  },
};
