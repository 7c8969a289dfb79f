// The live page: what comes from the device is shown, what the viewer asks for is done.
'use strict';

import { $, change, degrees, element, isOn, onChange, page, settings, unit, write } from './common.js';
import * as chart from './chart.js';
import { forget, measure, pin, showProbes, watchPointer } from './cursor.js';
import { keepPolling, pollStatus, showAreas, showStatus } from './panels.js';
import { PALETTES, clear, mark, paint } from './picture.js';
import { reconnect, stayConnected } from './stream.js';

const STALE_MS = 2000;

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
const OLD = ['stale', 'frozen', 'offline', 'disconnected'];

let rows = [];

function take(frame) {
  page.frame = frame;
  show();
  measure();
}

function show() {
  if (!page.frame) return;
  layOut();
  paint(page.frame);
  writeNumbers();
  showAreas(page.frame.numbers);
  mark();
  tell();
}

// ---- the numbers

function writeNumbers() {
  const { seq, age_ms: age, fps, dropped, classes, radiometric } = page.frame.numbers;
  $('seq').textContent = seq;
  $('age').textContent = age.toFixed(0);
  $('fps').textContent = fps === null ? '–' : fps.toFixed(1);
  $('dropped').textContent = dropped;
  document.body.classList.toggle('bare', !radiometric);
  classes.forEach((one, index) => {
    const { row, box, cells } = rows[index];
    box.checked = isOn(one.name, index);
    row.classList.toggle('off', !box.checked);
    row.classList.toggle('absent', one.pixels === 0);
    const texts = [`${(100 * one.area).toFixed(1)} %`, ...[one.min_c, one.mean_c, one.max_c].map(degrees)];
    cells.forEach((cell, at) => { cell.textContent = texts[at]; });
  });
}

// Rows fit the classes, which change only when another stream has taken the port.
function layOut() {
  const { classes } = page.frame.numbers;
  const names = classes.map(({ name, rgb }) => `${name} ${rgb}`).join('\n');
  if ($('legend').dataset.names === names) return;
  $('legend').dataset.names = names;
  rows = classes.map(legendRow);
  $('legend').replaceChildren(...rows.map(({ row }) => row));
  chart.draw();
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

// ---- what the picture is worth

function tell() {
  const { frame, connected } = page;
  const waited = frame ? performance.now() - frame.takenAt : 0;
  const state = worth(waited);
  const seconds = frame ? `${(waited / 1000).toFixed(waited < 10000 ? 1 : 0)} s` : '';
  const old = OLD.includes(state);
  const said = page.status?.cameras[page.camera]?.status;
  const note = (!connected && page.refused) || (state === said?.state && said.message) || NOTES[state];
  const before = document.body.dataset.state;
  document.body.dataset.state = state;
  write('badge', state.toUpperCase());
  write('note', note || '');
  write('veil', state === 'live' ? '' : old ? `${state.toUpperCase()} ${seconds}` : state.toUpperCase());
  $('held').hidden = !(frame?.numbers.held && (state === 'live' || state === 'ffc'));
  if (old) for (const id of ['age', 'fps']) write(id, '–');
  document.title = `${page.alarmed ? 'ALARM · ' : ''}${state === 'live' ? 'edgeunip live' : `${state.toUpperCase()} · edgeunip`}`;
  if (before !== state) showProbes();
}

// What the device says of its camera counts once frames stay away; before, the frame itself knows better.
function worth(waited) {
  const { frame, connected, status } = page;
  if (!connected) return 'disconnected';
  const said = status?.cameras[page.camera]?.status;
  const lost = said && said.reason !== 'starting' && OLD.includes(said.state);
  if (lost && (!frame || waited > STALE_MS / 2)) return said.state;
  if (!frame) return 'waiting';
  return waited > STALE_MS ? 'stale' : frame.numbers.state;
}

// ---- what the viewer wants

function turn(name, on) {
  change({ on: { ...settings.on, [name]: on } });
}

function turnAll() {
  if (!page.frame) return;
  const names = page.frame.numbers.classes.slice(1).map(({ name }) => name);
  const on = !names.every((name) => isOn(name, 1));
  change({ on: { ...settings.on, ...Object.fromEntries(names.map((name) => [name, on])) } });
}

function fade(by) {
  change({ opacity: Math.min(100, Math.max(0, settings.opacity + by)) });
}

function nextPalette() {
  const names = Object.keys(PALETTES);
  change({ palette: names[(names.indexOf(settings.palette) + 1) % names.length] });
}

function toggle(name) {
  change({ [name]: !settings[name] });
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else $('stage').requestFullscreen();
}

function watchCamera(number) {
  page.camera = number;
  history.replaceState(null, '', `#${number}`);
  [page.frame, page.status] = [null, null];
  forget();
  chart.empty();
  clear();
  for (const id of ['seq', 'age', 'fps', 'dropped']) write(id, '–');
  for (const { cells } of rows) for (const cell of cells) cell.textContent = '–';
  $('regional').hidden = true;
  reconnect();
  pollStatus(tell);
}

function showSettings() {
  $('opacity').value = settings.opacity;
  $('share').textContent = `${settings.opacity} %`;
  $('palette').value = settings.palette;
  for (const name of ['spots', 'regions', 'mean']) $(name).setAttribute('aria-pressed', settings[name]);
  for (const place of document.querySelectorAll('.unit')) place.textContent = unit();
  show();
  showProbes();
  showStatus();
  chart.draw();
}

const KEYS = {
  a: turnAll,
  o: () => fade(-10),
  p: () => fade(10),
  l: nextPalette,
  h: () => toggle('spots'),
  r: () => toggle('regions'),
  s: pin,
  u: () => toggle('fahrenheit'),
  f: fullScreen,
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.('select')) return;
  const number = Number(event.key) - 1;
  const nth = page.frame && page.frame.numbers.classes[number];
  if (nth) turn(nth.name, !isOn(nth.name, number));
  else KEYS[event.key.toLowerCase()]?.();
}

$('palette').append(...Object.keys(PALETTES).map((name) => element('option', '', name)));
$('palette').addEventListener('change', (event) => change({ palette: event.target.value }));
$('opacity').addEventListener('input', (event) => change({ opacity: Number(event.target.value) }));
$('cameras').addEventListener('change', (event) => watchCamera(Number(event.target.value)));
for (const name of ['spots', 'regions', 'mean']) $(name).addEventListener('click', () => toggle(name));
$('unit').addEventListener('click', () => toggle('fahrenheit'));
$('every').addEventListener('click', turnAll);
$('pin').addEventListener('click', pin);
$('full').addEventListener('click', fullScreen);
$('full').hidden = !document.fullscreenEnabled;
document.addEventListener('keydown', onKey);
new ResizeObserver(chart.draw).observe($('history'));
watchPointer();
onChange(showSettings);
showSettings();
setInterval(tell, 250);
keepPolling(tell);
stayConnected(take);
