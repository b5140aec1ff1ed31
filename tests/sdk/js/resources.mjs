// Holds custom resources (JSON, standard input) against the definitions of their operators: types, what must be there, and, as
// those let pass whatever they do not know, that each key is one of theirs.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const PACKAGES = { "monitoring.coreos.com": "prometheus-operator", "keda.sh": "keda" };
// Maps whose keys are their authors' own.
const FREE = new Set(["metadata", "labels", "annotations", "matchLabels", "metricLabels"]);

let faults = 0;
const say = (resource, fault) => {
  console.error(`${resource.kind} ${resource.metadata?.name}: ${fault}`);
  faults += 1;
};

for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const [group, version] = resource.apiVersion.split("/");
  const path = `@kubernetes-models/${PACKAGES[group]}/${group}/${version}`;
  const model = require(path)[resource.kind];
  if (!model) {
    say(resource, `${group} has no such kind`);
    continue;
  }
  try {
    new model(resource).validate();
  } catch (error) {
    say(resource, error.message);
  }
  const types = readFileSync(require.resolve(`${path}/${resource.kind}`).replace(/\.js$/, ".d.ts"), "utf8");
  for (const key of keys(resource.spec)) {
    if (!types.includes(`"${key}"`)) say(resource, `nobody knows the key ${key}`);
  }
}
process.exit(faults ? 1 : 0);

function* keys(value) {
  if (Array.isArray(value)) {
    for (const item of value) yield* keys(item);
  } else if (value && typeof value === "object") {
    for (const [key, inner] of Object.entries(value)) {
      yield key;
      if (!FREE.has(key)) yield* keys(inner);
    }
  }
}
