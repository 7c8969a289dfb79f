// What every part of the page shares: the newest frame, what the viewer wants, and how values are written.
'use strict';

export const page = {
  camera: Number.parseInt(location.hash.slice(1), 10) || 0, // its number, in the address so that it can be kept
  frame: null, // the last one drawn: {numbers, gray, classes, takenAt}
  connected: false,
  refused: '', // why there is no connection, as far as the server says
  status: null, // the last answer of /status.json
};

export const $ = (id) => document.getElementById(id);

export function element(tag, className = '', text = '') {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

// Only on change: screen readers speak up whenever a live region is written.
export function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// A session that has ended is renewed at the login form, which stands at the same address.
export async function answer(url, options) {
  const response = await fetch(url, options);
  if (response.status === 401) location.reload();
  return response;
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// ---- what the viewer wants, kept in this browser

const usual = { opacity: 50, palette: 'white hot', spots: true, regions: false, fahrenheit: false, mean: false, on: {}, seen: [] };
const listeners = [];

export const settings = load();

function load() {
  try {
    return { ...usual, ...JSON.parse(localStorage.getItem('edgeunip') || '{}') };
  } catch (error) {
    return usual; // private windows may forbid storage
  }
}

export function onChange(listener) {
  listeners.push(listener);
}

export function change(values) {
  Object.assign(settings, values);
  try {
    localStorage.setItem('edgeunip', JSON.stringify(settings));
  } catch (error) {
    console.info('Settings last until the page is closed.');
  }
  for (const listener of listeners) listener();
}

// The first class is the background: it stays gray until it is asked for.
export function isOn(name, index) {
  return settings.on[name] ?? index !== 0;
}

// ---- how values are written

export const inUnit = (celsius) => (settings.fahrenheit ? celsius * 1.8 + 32 : celsius);
export const unit = () => (settings.fahrenheit ? '°F' : '°C');

export function degrees(celsius) {
  return celsius === null || celsius === undefined ? '–' : inUnit(celsius).toFixed(1);
}

export function withUnit(celsius) {
  return celsius === null || celsius === undefined ? '–' : `${degrees(celsius)} ${unit()}`;
}
