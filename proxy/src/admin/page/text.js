// How figures and names become text. What is not known is a dash; names are never markup.
"use strict";

const NONE = "–";

const isKnown = (value) => value !== null && value !== undefined && Number.isFinite(value);

function seconds(value) {
  if (!isKnown(value)) return NONE;
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 100 ? `${value.toPrecision(3)} s` : `${Math.round(value)} s`;
}

function count(value) {
  if (!isKnown(value)) return NONE;
  if (value < 10000) return value.toLocaleString("en", { maximumFractionDigits: 1 });
  return value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 });
}

function rate(value) {
  if (!isKnown(value)) return NONE;
  return value > 0 && value < 0.1 ? `${count(value * 60)}/min` : `${count(value)}/s`;
}

function percent(value) {
  return isKnown(value) ? `${(value * 100).toLocaleString("en", { maximumSignificantDigits: 3 })} %` : NONE;
}

function dollars(value) {
  if (!isKnown(value) || value === 0) return NONE;
  return value < 1 ? `$${value.toPrecision(2)}` : `$${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
}

// An element with attributes and children; children that are no elements are text.
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const by = (id) => document.getElementById(id);

function clock(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? NONE : time.toLocaleTimeString([], { hour12: false });
}

// A name for where there is little room.
const short = (text) => (text.length > 32 ? `${text.slice(0, 31)}…` : text);

const name = (text, instead) => (text === "" || text === undefined ? instead : text);
