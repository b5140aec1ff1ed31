// Google's SDK: the Gemini API and Vertex AI, whole and streamed.

import { GoogleGenAI } from "@google/genai";
import { OAuth2Client } from "google-auth-library";

const ASKED = { model: "gemini-2.5-flash", contents: "Why does the tide rise twice a day?" };

const to = (url) => (url ? { httpOptions: { baseUrl: url } } : {});
const gemini = (url) => new GoogleGenAI({ apiKey: "tidecanary", ...to(url) });

function vertex(url) {
  // A token is given, so that none is asked for anywhere.
  const authClient = new OAuth2Client();
  authClient.setCredentials({ access_token: "tidecanary" });
  return new GoogleGenAI({
    vertexai: true,
    project: "tides",
    location: "us-central1",
    googleAuthOptions: { authClient },
    ...to(url),
  });
}

const counts = (usage) => [usage.promptTokenCount, usage.candidatesTokenCount];

async function generate(client) {
  const answer = await client.models.generateContent(ASKED);
  return { text: answer.text, tokens: counts(answer.usageMetadata) };
}

async function generateStreamed(client) {
  let text = "";
  let usage;
  for await (const chunk of await client.models.generateContentStream(ASKED)) {
    text += chunk.text ?? "";
    usage = chunk.usageMetadata;
  }
  return { text, tokens: counts(usage) };
}

export const cases = {
  gemini: (url) => generate(gemini(url)),
  gemini_streamed: (url) => generateStreamed(gemini(url)),
  vertex: (url) => generate(vertex(url)),
  vertex_streamed: (url) => generateStreamed(vertex(url)),
};
