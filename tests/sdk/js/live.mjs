// Opens the live page in a browser, and tells what there is to see as one line of JSON.
//
// live.mjs URL WIDTH light|dark CHROMIUM PICTURE

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [url, width, colorScheme, executablePath, picture] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
// What checks accessibility is no part of the page, and its policy would not let it in.
const context = await browser.newContext({
    viewport: { width: Number(width), height: 900 },
    colorScheme,
    bypassCSP: true,
});
const page = await context.newPage();
const outside = [];
const errors = [];
const answers = [];
const origin = new URL(url).origin;
page.on("request", (request) => {
    const asked = request.url();
    if (!asked.startsWith(`${origin}/`) && !asked.startsWith("data:")) outside.push(asked);
});
page.on("response", async (response) => {
    if (new URL(response.url()).pathname === "/live") answers.push(await response.json());
});
page.on("console", (message) => {
    // What is not configured is not there, and a browser says so.
    if (!/404/.test(message.text())) errors.push(message.text());
});
page.on("pageerror", (error) => errors.push(String(error)));

// As its own policy lets it, too.
const strict = await browser.newPage({ colorScheme });
strict.on("console", (message) => {
    if (!/404/.test(message.text())) errors.push(message.text());
});
strict.on("pageerror", (error) => errors.push(String(error)));
await strict.goto(url);
await strict.waitForSelector("#models tbody td", { timeout: 60_000 });
await strict.close();

await page.goto(url);
await page.waitForSelector("#models tbody td", { timeout: 60_000 });
const paint = await page.evaluate(
    () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
);
// From here on the page stands still, so that its figures are those of the last answer.
await page.click("#pause");
await page.waitForTimeout(500);

const seen = await page.evaluate(() => {
    const rows = (id) =>
        [...document.querySelectorAll(`#${id} tbody tr`)].map((row) =>
            [...row.children].map((cell) => cell.textContent),
        );
    const drawn = (canvas) => {
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return pixels.some((value) => value !== 0);
    };
    return {
        cards: [...document.querySelectorAll("#cards > div")].map((card) => card.innerText.split("\n")),
        models: rows("models"),
        routes: rows("routes"),
        alerts: [...document.querySelectorAll("#alerts [data-alert]")].map((row) => row.innerText),
        calls: document.querySelectorAll("#calls summary").length,
        policies: [...document.querySelectorAll("#policies h3")].map((head) => head.textContent),
        charts: [...document.querySelectorAll(".chart")].map((chart) => ({
            says: chart.getAttribute("aria-label"),
            drawn: [...chart.querySelectorAll("canvas")].some(drawn),
        })),
        spend: document.querySelector("#spend").innerText,
        baseline: document.querySelector("#baseline-section").innerText,
        usage: document.querySelector("#usage-section").innerText,
        images: document.images.length,
        scrolls: document.documentElement.scrollWidth,
        wide: [...document.querySelectorAll("body *")]
            .filter((element) => element.getBoundingClientRect().right > innerWidth && !element.closest(".scroll, .skip, .hidden"))
            .map((element) => element.outerHTML.slice(0, 160)),
        width: window.innerWidth,
        theme: document.documentElement.dataset.theme,
    };
});

// Where the tabulator leads, from the top of the page.
const reached = [];
await page.evaluate(() => document.querySelector(".skip").focus());
for (let step = 0; step < 14; step += 1) {
    await page.keyboard.press("Tab");
    reached.push(
        await page.evaluate(() => document.activeElement.id || document.activeElement.textContent),
    );
}
await page.fill("#filter", "no such model");
const filtered = await page.locator("#models tbody").innerText();
await page.fill("#filter", "");
await page.click("#models thead button >> nth=0");
const sorted = await page.locator("#models tbody th").allTextContents();
await page.click("#show-slow");
const slow = await page.locator("#calls summary").count();
await page.evaluate(axe);
const { violations } = await page.evaluate(() => globalThis.axe.run());
await page.evaluate(() => scrollTo(0, 0));
await page.screenshot({ path: picture, fullPage: true });
await browser.close();

const faults = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
console.log(JSON.stringify({ ...seen, reached, filtered, sorted, slow, faults, outside, errors, paint, answer: answers.at(-1) }));
