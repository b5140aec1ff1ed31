// Makes one call by one SDK and prints what it was told: node run.mjs SDK CASE [URL]
//
// Without a URL nothing is said of where it goes.

const [sdk, name, url] = process.argv.slice(2);
const { cases } = await import(`./${sdk}.mjs`);
console.log(JSON.stringify(await cases[name](url)));
// Connections that are kept open for a next call would hold this up.
process.exit(0);
