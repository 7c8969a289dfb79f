// What is not in the picture: alarms, areas of interest, the health of cameras and sinks, the choice of a camera.
'use strict';

import { $, answer, change, element, page, settings, withUnit, write } from './common.js';
import * as chart from './chart.js';
import { told } from './picture.js';

const EVERY_MS = 1000;
const MOST_SEEN = 200;

export async function pollStatus(then) {
  const camera = page.camera;
  try {
    const response = await answer(`/status.json?camera=${camera}&since=${chart.lastSecond()}`);
    if (response.ok && camera === page.camera) {
      page.status = await response.json();
      chart.add(page.status);
      showStatus();
    }
  } catch (error) {
    page.status = null; // that the device is gone is told by the stream
  }
  then();
}

export function keepPolling(then) {
  pollStatus(then);
  setInterval(() => document.hidden || pollStatus(then), EVERY_MS);
}

export function showStatus() {
  if (!page.status) return;
  showAlarms(page.status.alarms);
  showHealth(page.status.cameras);
  showCameras(page.status.cameras);
}

// ---- alarms

function showAlarms({ raised, past }) {
  const fresh = raised.filter(({ key }) => !settings.seen.includes(key));
  $('alarms').hidden = !raised.length && !past.length;
  $('raised').replaceChildren(...(raised.length ? raised.map(episode) : [element('li', 'quiet', 'None is raised.')]));
  $('past').hidden = !past.length;
  $('past').firstElementChild.textContent = `${past.length} past`;
  $('past').lastElementChild.replaceChildren(...past.map(episode));
  $('alarmed').hidden = !fresh.length;
  write('alarmed', fresh.length ? `${fresh.length} ALARM${fresh.length > 1 ? 'S' : ''}` : '');
  page.alarmed = fresh.length;
}

function episode(one) {
  const item = element('li', one.ended_s === null ? 'raised' : 'ended');
  const times = one.ended_s === null ? `since ${clock(one.began_s)}` : `${clock(one.began_s)} – ${clock(one.ended_s)}`;
  const several = page.status.cameras.length > 1 ? ` · ${one.camera}` : '';
  const value = one.ended_s === null ? told(one) : `peak ${told(one, one.peak)}`;
  item.dataset.key = one.key;
  item.append(element('b', '', one.rule), element('span', 'quiet', `${value} · ${times}${several}`));
  if (one.ended_s === null) item.append(acknowledged(one));
  return item;
}

function acknowledged({ key }) {
  if (settings.seen.includes(key)) return element('i', 'quiet', 'acknowledged');
  const button = Object.assign(element('button', '', 'Acknowledge'), { type: 'button' });
  button.addEventListener('click', () => change({ seen: [...settings.seen, key].slice(-MOST_SEEN) }));
  return button;
}

function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString([], { hour12: false });
}

// ---- areas of interest, of the newest frame

export function showAreas({ areas }) {
  const rows = Object.entries(areas).flatMap(([area, classes]) => Object.entries(classes)
    .filter(([, found]) => found.pixels)
    .map(([name, found], index) => row([
      index ? '' : area, name, `${(100 * found.area).toFixed(1)} %`, withUnit(found.max_c).replace(/ .*/, '')])));
  $('regional').hidden = !Object.keys(areas).length;
  $('areas').tBodies[0].replaceChildren(...rows);
}

function row(texts) {
  const made = element('tr');
  made.append(...texts.map((text) => element('td', '', text)));
  return made;
}

// ---- health

function showHealth(cameras) {
  const one = cameras[page.camera];
  const known = one && one.status.reason !== 'starting';
  $('health').hidden = !known;
  if (!known) return;
  const { status, totals, warnings } = one;
  const faults = Object.entries(status.faults).map(([reason, number]) => `${reason} ${number}`).join(', ');
  const entries = [
    ['Camera', `${one.camera || 'camera'}: ${status.state}, ${lasting(status.since_s)}`, status.message],
    ['Latency', `${totals.latency_ms[0].toFixed(0)} ms, 1 in 100 above ${totals.latency_ms[1].toFixed(0)} ms`],
    ['Frames', `${totals.captured} captured, ${totals.skipped} skipped, ${totals.lost} lost, ${totals.held} held`],
    ...(faults ? [['Faults', `${faults}; opened ${status.opened} times`]] : []),
    ...Object.values(warnings).map((text) => ['Warning', text, '', 'warned']),
    ...totals.sinks.map((sink) => ['Sink', sink.name, sinkNote(sink), sink.running ? '' : 'failed']),
  ];
  $('health').lastElementChild.replaceChildren(...entries.flatMap(entry));
}

function sinkNote({ running, message, written, dropped, failures }) {
  const said = [`${written} written`, dropped ? `${dropped} dropped` : '', failures ? `failed ${failures} times` : ''];
  return `${running ? '' : 'STOPPED. '}${message ? `${message} ` : ''}${said.filter(Boolean).join(', ')}`;
}

function entry([name, text, more = '', className = '']) {
  const value = element('dd', className, text);
  if (more) value.append(element('small', '', more));
  return [element('dt', '', name), value];
}

function lasting(seconds) {
  if (seconds < 120) return `for ${seconds.toFixed(0)} s`;
  return seconds < 7200 ? `for ${(seconds / 60).toFixed(0)} min` : `for ${(seconds / 3600).toFixed(0)} h`;
}

// ---- several cameras

function showCameras(cameras) {
  const select = $('cameras');
  select.hidden = cameras.length < 2;
  const texts = cameras.map(({ camera, ok, status: { state } }) => (
    `${state === 'live' ? '' : `${state.toUpperCase()} · `}${camera}${ok || state !== 'live' ? '' : ' · sink stopped'}`));
  if (select.dataset.texts === texts.join('\n')) return;
  select.dataset.texts = texts.join('\n');
  select.replaceChildren(...texts.map((text, index) => Object.assign(element('option', '', text), { value: index })));
  select.value = page.camera;
}
