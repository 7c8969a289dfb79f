// The picture: gray through a palette, classes laid over it, and marks at what is hot, followed or alarming.
'use strict';

import { $, degrees, element, isOn, page, settings, withUnit } from './common.js';

// Colours at equal steps from cold to hot.
export const PALETTES = {
  'white hot': ['#000000', '#ffffff'],
  'black hot': ['#ffffff', '#000000'],
  ironbow: ['#00000a', '#1d0a6e', '#6a0d9a', '#b3148a', '#e2483c', '#f58a14', '#fdc832', '#fffbe6'],
  lava: ['#050509', '#26125a', '#7a1360', '#c41d3e', '#ee5b1c', '#fbb32a', '#fff6b8'],
  rainbow: ['#10104a', '#2040d8', '#10a8d8', '#20c060', '#d0d820', '#f08018', '#d81818', '#ffffff'],
  arctic: ['#04061c', '#123f8c', '#2aa0c8', '#b8d8dc', '#f0c060', '#e87818', '#fff4d0'],
  'red hot': ['#000000', '#9a9a9a', '#d8d8d8', '#ff9a3c', '#ff2a12'],
};

const paper = $('picture').getContext('2d');
let pixels = null; // kept from frame to frame
let table = null; // see colours
let tableOf = '';

export function paint({ numbers, gray, classes }) {
  const { width, height } = numbers;
  if (!pixels || pixels.width !== width || pixels.height !== height) {
    Object.assign(paper.canvas, { width, height });
    pixels = new ImageData(width, height);
    document.body.style.setProperty('--ratio', width / height);
  }
  const packed = new Uint32Array(pixels.data.buffer);
  const of = colours(numbers.classes);
  for (let at = 0; at < packed.length; at += 1) packed[at] = of[(classes[at] << 8) | gray[4 * at]];
  paper.putImageData(pixels, 0, 0);
}

// The colour of every (class, gray), packed as a pixel lies in memory. It changes only when the viewer wants another.
function colours(classes) {
  const shown = classes.map(({ name, rgb }, index) => (isOn(name, index) ? rgb : null));
  const wanted = JSON.stringify([settings.palette, settings.opacity, shown]);
  if (wanted === tableOf) return table;
  const palette = ramp(PALETTES[settings.palette] ?? PALETTES['white hot']);
  const bytes = new Uint8ClampedArray(4 * 65536);
  for (let index = 0; index < 256; index += 1) {
    const share = shown[index] ? settings.opacity / 100 : 0;
    for (let gray = 0; gray < 256; gray += 1) {
      const at = 4 * ((index << 8) | gray);
      for (let part = 0; part < 3; part += 1) {
        bytes[at + part] = palette[gray][part] * (1 - share) + (share && shown[index][part] * share);
      }
      bytes[at + 3] = 255;
    }
  }
  [table, tableOf] = [new Uint32Array(bytes.buffer), wanted];
  return table;
}

// 256 colours between the given ones.
function ramp(steps) {
  const points = steps.map((text) => [1, 3, 5].map((at) => Number.parseInt(text.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, gray) => {
    const place = (gray / 255) * (points.length - 1);
    const low = Math.min(Math.floor(place), points.length - 2);
    return points[low].map((from, part) => from + (points[low + 1][part] - from) * (place - low));
  });
}

export function clear() {
  paper.clearRect(0, 0, paper.canvas.width, paper.canvas.height);
  $('marks').replaceChildren();
}

// ---- marks

export function mark() {
  const { width, height, classes, regions, alarms } = page.frame.numbers;
  const scale = $('view').clientWidth / width;
  const rgb = Object.fromEntries(classes.map((one) => [one.name, one.rgb]));
  const on = classes.filter(({ name }, index) => isOn(name, index));
  const placed = [];
  const label = (spot, [x, y], text, colour) => {
    const wide = 24 + 8 * text.length;
    const at = freePlace((x + 0.5) * scale, (y + 0.5) * scale, width * scale, height * scale, { wide, placed });
    spot.classList.toggle('left', at.side < 0);
    put(spot, x + 0.5, y + 0.5, page.frame.numbers);
    spot.style.setProperty('--colour', colour);
    spot.style.setProperty('--shift', `${at.shift}px`);
    spot.append(element('span', '', text));
    return spot;
  };
  const alarming = alarms.filter((one) => one.hotspot).map((one) => (
    label(element('div', 'mark alarm'), one.hotspot, `${one.name} ${told(one)}`, '#ff5d5d')));
  const said = new Set(alarms.map(({ hotspot }) => String(hotspot)));
  const hot = settings.spots ? on.filter(({ hotspot }) => hotspot && !said.has(String(hotspot))) : [];
  const spots = hot.map((one) => label(element('div', 'mark'), one.hotspot, withUnit(one.max_c), `rgb(${one.rgb})`));
  const names = new Set(on.map(({ name }) => name));
  const followed = settings.regions ? regions.filter(({ name }) => names.has(name)) : [];
  $('marks').replaceChildren(...followed.map((one) => box(one, rgb[one.name])), ...spots, ...alarming);
}

function box({ box: [x, y, wide, high], name, number, max_c: max }, rgb) {
  const { width, height } = page.frame.numbers;
  const frame = element('div', 'region');
  put(frame, x, y, page.frame.numbers);
  frame.style.width = `${(100 * wide) / width}%`;
  frame.style.height = `${(100 * high) / height}%`;
  frame.style.setProperty('--colour', `rgb(${rgb})`);
  const heat = max === null ? '' : ` ${degrees(max)}°`;
  frame.append(element('span', y < 0.08 * height ? 'inside' : '', `${name}${number ? ` ${number}` : ''}${heat}`));
  return frame;
}

// Stands at (x, y) of the native frame, however large the picture is.
export function put(what, x, y, { width, height }) {
  what.style.left = `${(100 * x) / width}%`;
  what.style.top = `${(100 * y) / height}%`;
}

// The value of an alarm, or its peak.
export function told({ unit: of, value }, shown = value) {
  if (shown === null) return '–';
  if (of === 'C') return withUnit(shown);
  return of === 'count' ? String(shown) : `${shown} ${of}`;
}

// Where the label of a spot at (x, y), all in CSS pixels, stays inside the picture and off the labels placed before.
function freePlace(x, y, width, height, { wide, placed }) {
  const high = 24;
  const places = [0, -24, 24, -48, 48].flatMap((shift) => [1, -1].map((side) => ({
    side, shift, wide, left: side > 0 ? x + 12 : x - 12 - wide, top: y + shift - high / 2,
  })));
  const inside = places.filter(({ left, top }) => left >= 0 && left + wide <= width && top >= 0 && top + high <= height);
  const hits = (one) => placed.some((two) => one.left < two.left + two.wide && two.left < one.left + wide && Math.abs(one.top - two.top) < high);
  const place = inside.find((one) => !hits(one)) ?? inside[0] ?? places[0];
  placed.push(place);
  return place;
}
