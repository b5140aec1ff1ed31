// Opens a report in a browser, and tells what there is to see as one line of JSON.
//
// page.mjs FILE WIDTH light|dark CHROMIUM PICTURE

import { chromium } from "playwright-core";
import { pathToFileURL } from "node:url";

const [file, width, colorScheme, executablePath, picture] = process.argv.slice(2);

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({
    viewport: { width: Number(width), height: 844 },
    colorScheme,
});
const requests = [];
const errors = [];
const own = pathToFileURL(file).href;
page.on("request", (request) => {
    if (request.url() !== own && !request.url().startsWith("data:")) requests.push(request.url());
});
page.on("console", (message) => errors.push(message.text()));
page.on("pageerror", (error) => errors.push(String(error)));
await page.goto(own, { waitUntil: "networkidle" });

const seen = await page.evaluate(() => {
    // How many marks of a chart take room on the page.
    const marks = (svg) =>
        [...svg.querySelectorAll(".line, .dots, .bar")].filter((mark) => {
            const box = mark.getBBox();
            return mark.getTotalLength?.() > 0 || box.width > 0 || box.height > 0;
        }).length;
    const charts = [...document.querySelectorAll("figure")].map((figure) => ({
        title: figure.querySelector("figcaption").textContent,
        marks: marks(figure.querySelector("svg")),
    }));
    const heights = [...document.querySelectorAll("figure svg text")].map(
        (text) => text.getBoundingClientRect().height,
    );
    // Relative luminance, as WCAG 2 has it.
    const luminance = (color) => {
        const [red, green, blue] = color
            .match(/[\d.]+/g)
            .slice(0, 3)
            .map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const contrast = (one, other) => {
        const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    const style = (element) => getComputedStyle(element);
    const faint = document.querySelector(".note");
    const card = document.querySelector("figure");
    return {
        charts,
        smallest: Math.min(...heights),
        scrolls: document.documentElement.scrollWidth,
        width: window.innerWidth,
        images: document.images.length,
        text: document.body.innerText,
        contrast: Math.min(
            contrast(style(document.body).color, style(document.body).backgroundColor),
            contrast(style(faint).color, style(card).backgroundColor),
        ),
    };
});
await page.screenshot({ path: picture, fullPage: true });
await browser.close();
console.log(JSON.stringify({ ...seen, requests, errors }));
