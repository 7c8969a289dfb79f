// One long fetch carries a packet a frame: numbers, gray picture and class map of the same instant.
'use strict';

import { answer, page, pause } from './common.js';

const RETRY_MS = 1000;
const HEAD_BYTES = 16;

let wanted = new AbortController();

// Stays connected for as long as the page is open and visible; `take` gets every frame that there is time for.
export async function stayConnected(take) {
  document.addEventListener('visibilitychange', () => document.hidden && wanted.abort());
  for (;;) {
    if (document.hidden) await shown();
    wanted = new AbortController();
    try {
      await watch(wanted.signal, take);
    } catch (error) {
      if (!wanted.signal.aborted) console.info(String(error));
    }
    page.connected = false;
    if (!wanted.signal.aborted) await pause(RETRY_MS);
  }
}

// Starts anew, with another camera.
export function reconnect() {
  wanted.abort();
}

function shown() {
  return new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
}

async function watch(signal, take) {
  const response = await answer(`/stream?camera=${page.camera}`, { signal });
  page.refused = response.ok ? '' : await response.text();
  if (!response.ok) throw new Error(page.refused);
  page.connected = true;
  const reader = response.body.getReader();
  let bytes = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    bytes = joined(bytes, value);
    const { packet, rest } = newest(bytes);
    bytes = rest;
    if (packet) {
      const frame = await opened(packet);
      if (signal.aborted) return;
      take(frame);
    }
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

async function opened(packet) {
  const takenAt = performance.now() - packet.waited;
  const numbers = JSON.parse(new TextDecoder().decode(packet.numbers));
  const [gray, classes] = await Promise.all([grayOf(packet.picture, numbers), inflated(packet.classes)]);
  return { numbers, gray, classes, takenAt };
}

const reading = document.createElement('canvas').getContext('2d', { willReadFrequently: true });

// The picture as red, green, blue, alpha: its gray is in each of the first three.
async function grayOf(bytes, { width, height }) {
  const picture = await createImageBitmap(new Blob([bytes], { type: 'image/jpeg' }));
  const { canvas } = reading;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  reading.drawImage(picture, 0, 0);
  picture.close();
  return reading.getImageData(0, 0, width, height).data;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
