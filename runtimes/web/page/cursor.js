// The temperature under the crosshair and at pinned spots. The device answers from the raw counts of the very frame that
// is shown: a temperature is never guessed from a colour.
'use strict';

import { $, answer, element, page, pause, write, withUnit } from './common.js';
import { put } from './picture.js';

const EVERY_MS = 100;
const MOST_PINS = 7;
const INVITATION = 'Point at the picture to read its temperature';
const SCENE = ['live', 'settling', 'degraded']; // in which there is something to read

let point = null; // [x, y] in native pixels
let pins = [];
let asking = false;
let moved = false;
let told = { points: [], celsius: [], seq: -1 };

export function watchPointer() {
  const view = $('view');
  view.addEventListener('pointerdown', aim);
  view.addEventListener('pointermove', aim);
  view.addEventListener('pointerleave', (event) => event.pointerType === 'mouse' && aimAt(null));
  view.addEventListener('click', (event) => event.pointerType === 'mouse' && pin());
  view.addEventListener('keydown', step);
}

// Also called with every frame: the same place has another temperature then.
export async function measure() {
  moved = true;
  if (asking) return;
  asking = true;
  while (moved) {
    moved = false;
    await ask();
    await pause(EVERY_MS);
  }
  asking = false;
}

async function ask() {
  const points = [...(point ? [point] : []), ...pins];
  if (!page.frame || !points.length) return;
  const at = points.map(([x, y]) => `&at=${x},${y}`).join('');
  try {
    const response = await answer(`/celsius?camera=${page.camera}&seq=${page.frame.numbers.seq}${at}`);
    told = { points, ...(response.ok ? await response.json() : { celsius: [], seq: -1 }) };
  } catch (error) {
    told = { points, celsius: [], seq: -1 }; // that the device is gone is told by the stream
  }
  showProbes();
}

export function showProbes() {
  if (!page.frame) return;
  const { width } = page.frame.numbers;
  const probes = [...pins.map((one) => probe(one, 'pin')), ...(point ? [probe(point, 'cross')] : [])];
  for (const { made, at } of probes) made.classList.toggle('left', at[0] > 0.75 * width);
  $('probes').replaceChildren(...probes.map(({ made }) => made));
  write('reading', point ? `x ${point[0]}, y ${point[1]}: ${reading(point)}` : INVITATION);
  $('reading').dataset.seq = told.seq;
  $('pin').disabled = !point;
}

function probe(at, className) {
  const made = element('div', `probe ${className}`);
  put(made, at[0] + 0.5, at[1] + 0.5, page.frame.numbers);
  made.append(element('span', '', withUnit(celsiusAt(at))));
  return { made, at };
}

function reading(at) {
  return page.frame.numbers.radiometric ? withUnit(celsiusAt(at)) : 'this camera gives no temperatures';
}

function celsiusAt([x, y]) {
  const index = told.points.findIndex((one) => one[0] === x && one[1] === y);
  return SCENE.includes(document.body.dataset.state) ? told.celsius[index] : null;
}

function aim(event) {
  if (!page.frame) return;
  const { width, height } = page.frame.numbers;
  const { left, top, width: wide, height: high } = $('picture').getBoundingClientRect();
  aimAt([((event.clientX - left) * width) / wide, ((event.clientY - top) * height) / high]);
}

function aimAt(wanted) {
  point = wanted && inside(wanted);
  showProbes();
  measure();
}

function inside([x, y]) {
  const { width, height } = page.frame.numbers;
  const within = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
  return [within(x, width), within(y, height)];
}

function step(event) {
  const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
  if (event.key === 'Escape') aimAt(null);
  if (!page.frame || !(x || y)) return;
  event.preventDefault();
  const { width, height } = page.frame.numbers;
  const from = point ?? [width / 2, height / 2];
  const far = event.shiftKey ? 10 : 1;
  aimAt([from[0] + far * x, from[1] + far * y]);
}

// Pins the crosshair, or takes away the pin it is at. The oldest gives way to one too many.
export function pin() {
  if (!point) return;
  const far = (one) => Math.hypot(one[0] - point[0], one[1] - point[1]) > 0.02 * page.frame.numbers.width;
  const kept = pins.filter(far);
  pins = kept.length < pins.length ? kept : [...pins, point].slice(-MOST_PINS);
  showProbes();
  measure();
}

export function forget() {
  [point, pins] = [null, []];
  $('probes').replaceChildren();
  write('reading', INVITATION);
}
