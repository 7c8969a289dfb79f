// The temperature of every class over the last ten minutes. The device keeps them, so a page opened now shows them too.
'use strict';

import { $, inUnit, isOn, page, settings, unit, write } from './common.js';

const SPAN_S = 600;
const GAP_S = 3; // no sample for longer than this is a gap: nothing is drawn over it
const MARGIN = { left: 44, right: 12, top: 10, bottom: 24 };

let samples = []; // [second, highest of each class, mean of each class], degC
let now = 0;

export function lastSecond() {
  return samples.length ? samples[samples.length - 1][0] : 0;
}

export function add(status) {
  if (status.now < now) samples = []; // the device has started anew
  now = status.now;
  const from = status.history.samples[0]?.[0] ?? Infinity;
  samples = [...samples.filter(([second]) => second < from && second > now - SPAN_S), ...status.history.samples];
  draw();
}

export function empty() {
  samples = [];
  draw();
}

export function draw() {
  const canvas = $('chart');
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const density = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(width * density), height: Math.round(height * density) });
  const pen = canvas.getContext('2d');
  pen.scale(density, density);
  const lines = visible();
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value).filter((value) => value !== null));
  canvas.dataset.samples = samples.length;
  canvas.setAttribute('aria-label', lines.map(summary).filter(Boolean).join('; ') || 'No temperatures yet');
  write('plotted', `${settings.mean ? 'Mean' : 'Highest'} temperature, last 10 minutes`);
  const scale = axes(pen, width, height, values);
  for (const line of lines) stroke(pen, line, scale);
}

function visible() {
  const classes = page.frame?.numbers.classes ?? [];
  const which = settings.mean ? 2 : 1;
  return classes.flatMap(({ name, rgb }, index) => (isOn(name, index)
    ? [{ name, rgb, points: samples.map((one) => [one[0], toUnit(one[which][index])]) }]
    : []));
}

const toUnit = (celsius) => (celsius === null || celsius === undefined ? null : inUnit(celsius));

function summary({ name, points }) {
  const values = points.map(([, value]) => value).filter((value) => value !== null);
  if (!values.length) return '';
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  return `${name} ${low.toFixed(1)} to ${high.toFixed(1)} ${unit()}`;
}

// Draws grid and numbers; returns how (second, value) become a place.
function axes(pen, width, height, values) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const step = nice((values.length ? Math.max(high - low, 4) : 10) / 4);
  const bottom = values.length ? Math.floor(low / step) * step : 0;
  const top = values.length ? Math.max(Math.ceil(high / step), bottom / step + 2) * step : 40;
  const x = (second) => width - MARGIN.right - ((now - second) / SPAN_S) * (width - MARGIN.left - MARGIN.right);
  const y = (value) => height - MARGIN.bottom - ((value - bottom) / (top - bottom)) * (height - MARGIN.top - MARGIN.bottom);
  Object.assign(pen, { font: '11px system-ui, sans-serif', fillStyle: '#93a0b3', strokeStyle: '#252d39', lineWidth: 1 });
  pen.textAlign = 'right';
  pen.textBaseline = 'middle';
  for (let value = bottom; value <= top + step / 2; value += step) {
    rule(pen, x(now - SPAN_S), y(value), x(now), y(value));
    pen.fillText(`${Number(value.toFixed(1))}${value + step > top + step / 2 ? ` ${unit()}` : ''}`, MARGIN.left - 6, y(value));
  }
  pen.textBaseline = 'top';
  pen.textAlign = 'center';
  for (let minutes = 10; minutes >= 0; minutes -= 2) {
    const at = x(now - 60 * minutes);
    rule(pen, at, MARGIN.top, at, height - MARGIN.bottom);
    if (minutes === 0) pen.textAlign = 'right';
    pen.fillText(minutes ? `−${minutes} min` : 'now', minutes ? at : at + MARGIN.right - 2, height - MARGIN.bottom + 7);
  }
  return { x, y };
}

function rule(pen, fromX, fromY, toX, toY) {
  pen.beginPath();
  pen.moveTo(Math.round(fromX) + 0.5, Math.round(fromY) + 0.5);
  pen.lineTo(Math.round(toX) + 0.5, Math.round(toY) + 0.5);
  pen.stroke();
}

function nice(wanted) {
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].find((factor) => factor * power >= wanted) * power;
}

// A line that is interrupted where there was no temperature: shutter closed, class absent, camera lost.
function stroke(pen, { rgb, points }, { x, y }) {
  Object.assign(pen, { strokeStyle: `rgb(${rgb})`, fillStyle: `rgb(${rgb})`, lineWidth: 1.8, lineJoin: 'round' });
  let before = -Infinity;
  let begun = false;
  for (const [second, value] of points) {
    if (value === null) continue;
    if (second - before <= GAP_S) {
      pen.lineTo(x(second), y(value));
    } else {
      if (begun) pen.stroke();
      pen.beginPath();
      pen.moveTo(x(second) - 1, y(value)); // a lone second is a dot
      pen.lineTo(x(second), y(value));
      begun = true;
    }
    before = second;
  }
  if (begun) pen.stroke();
}
