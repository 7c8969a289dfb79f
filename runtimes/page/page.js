// The live page. One long fetch carries a packet a frame: numbers, gray picture and class map of the same instant. The
// picture and the classes are laid over each other here, so that switching a class costs the device nothing.
'use strict';

const STALE_MS = 2000;
const RETRY_MS = 1000;
const HEAD_BYTES = 16;

const NOTES = {
  waiting: 'The first frame has not come yet.',
  live: '',
  ffc: 'The camera calibrates itself; its shutter is closed.',
  settling: 'The camera settles after its calibration.',
  stale: 'No new frame comes: this picture is old.',
  frozen: 'The camera repeats the same frame.',
  offline: 'The camera is lost.',
  degraded: 'The camera works, but not as it should.',
  disconnected: 'The stream has ended or cannot be reached; trying again.',
};

const $ = (id) => document.getElementById(id);
const paper = $('picture').getContext('2d');
const tint = document.createElement('canvas').getContext('2d');

const settings = load();
let frame = null; // the last one drawn: {numbers, picture, classes, takenAt}
let pixels = null; // of the tint, kept from frame to frame
let refused = ''; // why there is no connection, as far as the server says
let connected = false;
let rows = [];

// ---- the stream

async function stayConnected() {
  for (;;) {
    const wanted = new AbortController();
    const hide = () => document.hidden && wanted.abort();
    document.addEventListener('visibilitychange', hide);
    try {
      if (document.hidden) await shown();
      await watch(wanted.signal);
    } catch (error) {
      if (!wanted.signal.aborted) console.info(String(error));
    }
    document.removeEventListener('visibilitychange', hide);
    connected = false;
    await new Promise((resolve) => setTimeout(resolve, wanted.signal.aborted ? 0 : RETRY_MS));
  }
}

function shown() {
  return new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
}

async function watch(signal) {
  const response = await fetch('/stream', { signal });
  refused = response.ok ? '' : await response.text();
  if (!response.ok) throw new Error(refused);
  connected = true;
  const reader = response.body.getReader();
  let bytes = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    bytes = joined(bytes, value);
    const { packet, rest } = newest(bytes);
    bytes = rest;
    if (packet) await take(packet);
  }
}

function joined(one, other) {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}

// The last whole packet in `bytes`: older ones came while the page was busy, and nobody needs them any more.
function newest(bytes) {
  let packet = null;
  let at = 0;
  while (bytes.length - at >= HEAD_BYTES) {
    const head = new DataView(bytes.buffer, bytes.byteOffset + at, HEAD_BYTES);
    const sizes = [4, 8, 12].map((offset) => head.getUint32(offset));
    const end = at + HEAD_BYTES + sizes[0] + sizes[1] + sizes[2];
    if (bytes.length < end) break;
    let start = at + HEAD_BYTES;
    const [numbers, picture, classes] = sizes.map((size) => bytes.subarray(start, (start += size)));
    packet = { waited: head.getUint32(0), numbers, picture, classes };
    at = end;
  }
  return { packet, rest: bytes.subarray(at) };
}

async function take(packet) {
  const takenAt = performance.now() - packet.waited;
  const numbers = JSON.parse(new TextDecoder().decode(packet.numbers));
  const [picture, classes] = await Promise.all([
    createImageBitmap(new Blob([packet.picture], { type: 'image/jpeg' })),
    inflated(packet.classes),
  ]);
  if (frame) frame.picture.close();
  frame = { numbers, picture, classes, takenAt };
  show();
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// ---- the picture

function show() {
  if (!frame) return;
  layOut();
  paint();
  writeNumbers();
  mark();
  tell();
}

function paint() {
  const colours = table();
  const packed = new Uint32Array(pixels.data.buffer);
  for (let at = 0; at < packed.length; at += 1) packed[at] = colours[frame.classes[at]];
  tint.putImageData(pixels, 0, 0);
  paper.globalAlpha = 1;
  paper.drawImage(frame.picture, 0, 0);
  paper.globalAlpha = settings.opacity / 100;
  paper.drawImage(tint.canvas, 0, 0);
}

// The colour of every class index, packed as a pixel lies in memory; what is switched off stays transparent.
function table() {
  const colours = new Uint8ClampedArray(4 * 256);
  frame.numbers.classes.forEach(({ name, rgb }, index) => {
    if (isOn(name)) colours.set([...rgb, 255], 4 * index);
  });
  return new Uint32Array(colours.buffer);
}

function mark() {
  const { width, height, classes } = frame.numbers;
  const scale = $('view').clientWidth / width;
  const hot = settings.spots ? classes.filter((one) => one.hotspot && isOn(one.name)) : [];
  const placed = [];
  $('marks').replaceChildren(...hot.map(({ hotspot: [x, y], rgb, max_c: max }) => {
    const spot = element('div', 'mark');
    const at = freePlace((x + 0.5) * scale, (y + 0.5) * scale, width * scale, height * scale, placed);
    spot.classList.toggle('left', at.side < 0);
    spot.style.left = `${(100 * (x + 0.5)) / width}%`;
    spot.style.top = `${(100 * (y + 0.5)) / height}%`;
    spot.style.setProperty('--colour', `rgb(${rgb})`);
    spot.style.setProperty('--shift', `${at.shift}px`);
    spot.append(element('span', '', `${max.toFixed(1)} °C`));
    return spot;
  }));
}

// Where the label of a spot at (x, y), all in CSS pixels, stays inside the picture and off the labels placed before.
function freePlace(x, y, width, height, placed) {
  const [wide, high] = [92, 24];
  const places = [0, -24, 24, -48, 48].flatMap((shift) => [1, -1].map((side) => ({
    side, shift, left: side > 0 ? x + 12 : x - 12 - wide, top: y + shift - high / 2,
  })));
  const inside = places.filter(({ left, top }) => left >= 0 && left + wide <= width && top >= 0 && top + high <= height);
  const hits = (one) => placed.some((two) => Math.abs(one.left - two.left) < wide && Math.abs(one.top - two.top) < high);
  const place = inside.find((one) => !hits(one)) ?? inside[0] ?? places[0];
  placed.push(place);
  return place;
}

// ---- the numbers

function writeNumbers() {
  const { seq, age_ms: age, fps, dropped, classes } = frame.numbers;
  $('seq').textContent = seq;
  $('age').textContent = age.toFixed(0);
  $('fps').textContent = fps === null ? '–' : fps.toFixed(1);
  $('dropped').textContent = dropped;
  $('legend').parentElement.classList.toggle('bare', classes.every((one) => one.max_c === null));
  classes.forEach((one, index) => {
    const { row, box, cells } = rows[index];
    box.checked = isOn(one.name);
    row.classList.toggle('off', !box.checked);
    row.classList.toggle('absent', one.pixels === 0);
    const texts = [`${(100 * one.area).toFixed(1)} %`, ...[one.min_c, one.mean_c, one.max_c].map(degrees)];
    cells.forEach((cell, at) => { cell.textContent = texts[at]; });
  });
}

function degrees(celsius) {
  return celsius === null ? '–' : celsius.toFixed(1);
}

// Rows and canvases fit the classes and the size, which change only when another stream has taken the port.
function layOut() {
  const { width, height, classes } = frame.numbers;
  if (!pixels || pixels.width !== width || pixels.height !== height) {
    for (const { canvas } of [paper, tint]) Object.assign(canvas, { width, height });
    pixels = new ImageData(width, height);
    document.body.style.setProperty('--ratio', width / height);
  }
  const names = classes.map(({ name, rgb }) => `${name} ${rgb}`).join('\n');
  if ($('legend').dataset.names === names) return;
  $('legend').dataset.names = names;
  rows = classes.map(legendRow);
  $('legend').replaceChildren(...rows.map(({ row }) => row));
}

function legendRow({ name, rgb }) {
  const row = element('tr');
  const label = element('label');
  const box = Object.assign(element('input'), { type: 'checkbox' });
  box.addEventListener('change', () => turn(name, box.checked));
  row.style.setProperty('--colour', `rgb(${rgb})`);
  label.append(box, name);
  const first = element('td');
  first.append(label);
  const cells = [0, 1, 2, 3].map(() => element('td'));
  row.append(first, ...cells);
  return { row, box, cells };
}

function element(tag, className = '', text = '') {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

// ---- what the picture is worth

function tell() {
  const waited = frame ? performance.now() - frame.takenAt : 0;
  const state = !connected ? 'disconnected' : !frame ? 'waiting' : waited > STALE_MS ? 'stale' : frame.numbers.state;
  const seconds = frame ? `${(waited / 1000).toFixed(waited < 10000 ? 1 : 0)} s` : '';
  const old = state === 'stale' || state === 'disconnected';
  write('badge', state.toUpperCase());
  write('note', (state === 'disconnected' && refused) || NOTES[state] || '');
  write('veil', state === 'live' ? '' : old ? `${state.toUpperCase()} ${seconds}` : state.toUpperCase());
  if (old) for (const id of ['age', 'fps']) write(id, '–');
  document.body.dataset.state = state;
  document.title = state === 'live' ? 'edgeunip live' : `${state.toUpperCase()} · edgeunip`;
}

// Only on change: screen readers speak up whenever the badge is written.
function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// ---- what the viewer wants, kept in this browser

function load() {
  const usual = { opacity: 50, spots: true, on: {} };
  try {
    return { ...usual, ...JSON.parse(localStorage.getItem('edgeunip') || '{}') };
  } catch (error) {
    return usual; // private windows may forbid storage
  }
}

function change(values) {
  Object.assign(settings, values);
  try {
    localStorage.setItem('edgeunip', JSON.stringify(settings));
  } catch (error) {
    console.info('Settings last until the page is closed.');
  }
  $('opacity').value = settings.opacity;
  $('share').textContent = `${settings.opacity} %`;
  $('spots').setAttribute('aria-pressed', settings.spots);
  show();
}

// The first class is the background: it stays gray until it is asked for.
function isOn(name) {
  return settings.on[name] ?? name !== frame.numbers.classes[0].name;
}

function turn(name, on) {
  change({ on: { ...settings.on, [name]: on } });
}

function turnAll() {
  if (!frame) return;
  const names = frame.numbers.classes.slice(1).map(({ name }) => name);
  const on = !names.every(isOn);
  change({ on: { ...settings.on, ...Object.fromEntries(names.map((name) => [name, on])) } });
}

function fade(by) {
  change({ opacity: Math.min(100, Math.max(0, settings.opacity + by)) });
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else $('stage').requestFullscreen();
}

const KEYS = {
  a: turnAll,
  o: () => fade(-10),
  p: () => fade(10),
  h: () => change({ spots: !settings.spots }),
  f: fullScreen,
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const nth = frame && frame.numbers.classes[Number(event.key) - 1];
  if (nth) turn(nth.name, !isOn(nth.name));
  else KEYS[event.key.toLowerCase()]?.();
}

$('opacity').addEventListener('input', (event) => change({ opacity: Number(event.target.value) }));
$('spots').addEventListener('click', () => change({ spots: !settings.spots }));
$('every').addEventListener('click', turnAll);
$('full').addEventListener('click', fullScreen);
$('full').hidden = !document.fullscreenEnabled;
document.addEventListener('keydown', onKey);
change({});
setInterval(tell, 250);
stayConnected();
