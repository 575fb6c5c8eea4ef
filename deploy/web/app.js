// made by Falconet
// Photographs and camera frames go to the worker as they are; what comes back is drawn over them.
import { DRAWERS, drawingScale, listRows, sentence } from './draw.js';

const MOST = 50e6; // pixels of the largest photograph taken
const KEPT = 40; // cards; older ones go
const WANTED = { classification: ['scores'], detection: ['boxes', 'scores', 'labels', 'count'], segmentation: ['mask'] };
const element = (id) => document.getElementById(id);
const state = (name) => document.documentElement.setAttribute('data-state', name);
const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
const waiting = new Map();
const cards = new Set();
let about;
let queue = Promise.resolve();
let stream = null;

worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  error === undefined ? resolve(result) : reject(new Error(error));
};
worker.onerror = ({ message }) => problem(`The model could not be started (${message ?? 'its script was not loaded'}).`);

function ask(message, transfer = []) {
  return new Promise((resolve, reject) => {
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, ...message }, transfer);
  });
}

function say(text) {
  element('status').textContent = text;
}

function problem(text) {
  element('problem').textContent = text;
  element('problem').hidden = !text;
}

const threshold = () => Number(element('threshold').value);

// A card shows one photograph, or the camera.
function makeCard(name) {
  const figure = document.createElement('figure');
  const canvas = document.createElement('canvas');
  canvas.setAttribute('role', 'img');
  const caption = document.createElement('figcaption');
  const heading = document.createElement('h2');
  heading.textContent = name;
  const numbers = document.createElement('p');
  numbers.className = 'numbers';
  const list = document.createElement('ul');
  caption.append(heading, numbers, list);
  figure.append(canvas, caption);
  element('results').prepend(figure);
  const card = { name, figure, canvas, numbers, list, base: document.createElement('canvas') };
  cards.add(card);
  for (const oldest of cards) {
    if (cards.size <= KEPT) break;
    oldest.figure.remove();
    cards.delete(oldest);
  }
  return card;
}

function paint(card) {
  const { canvas, base, outputs, width, height } = card;
  canvas.width = base.width;
  canvas.height = base.height;
  const context = canvas.getContext('2d');
  context.drawImage(base, 0, 0);
  const rows = DRAWERS[about.task](context, outputs, { classes: about.classes, width, height, threshold: threshold() });
  listRows(card.list, rows);
  card.text = sentence(about.task, rows);
  canvas.setAttribute('aria-label', `${card.name}: ${card.text}`);
}

async function show(card, source, width, height) {
  const begin = performance.now();
  const full = document.createElement('canvas');
  full.width = width;
  full.height = height;
  const context = full.getContext('2d', { willReadFrequently: true, colorSpace: 'srgb' });
  context.fillStyle = '#fff'; // under transparent pixels, as in Python
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const scale = drawingScale(width, height);
  const base = document.createElement('canvas');
  base.width = Math.max(1, Math.round(width * scale));
  base.height = Math.max(1, Math.round(height * scale));
  base.getContext('2d').drawImage(full, 0, 0, base.width, base.height);
  full.width = full.height = 0; // gives the memory back
  const wanted = WANTED[about.task];
  const { outputs, milliseconds } = await ask({ task: 'answer', rgba: data.buffer, width, height, wanted }, [data.buffer]);
  Object.assign(card, { base, outputs, width, height });
  paint(card);
  const all = performance.now() - begin;
  card.numbers.textContent = `${width} × ${height} pixels, ${Math.round(all)} ms in all, ${Math.round(milliseconds)} ms in the model`;
  // For whoever builds on this page: what the graph said, as it said it.
  const detail = { name: card.name, width, height, outputs, milliseconds, all };
  document.dispatchEvent(new CustomEvent('falconet-answer', { detail }));
}

async function addFile(file) {
  let bitmap;
  try {
    // Turned as viewers show it; its colours as stored, as in training: profiles move scores.
    bitmap = await createImageBitmap(file, { imageOrientation: 'from-image', colorSpaceConversion: 'none' });
  } catch {
    problem(`${file.name} is no picture that this browser can read.`);
    return;
  }
  if (bitmap.width * bitmap.height > MOST) {
    problem(`${file.name} has more than ${MOST / 1e6} megapixels: make it smaller first.`);
    bitmap.close();
    return;
  }
  const card = makeCard(file.name);
  say(`Looking at ${file.name} …`);
  try {
    await show(card, bitmap, bitmap.width, bitmap.height);
    say(`${file.name}: ${card.text}`);
  } catch (error) {
    problem(`${file.name}: the model did not answer (${error.message}).`);
    say('');
    card.figure.remove();
    cards.delete(card);
  } finally {
    bitmap.close();
  }
}

function addFiles(files) {
  problem('');
  for (const file of files) queue = queue.then(() => addFile(file));
}

async function startCamera() {
  const video = element('video');
  problem('');
  try {
    if (!navigator.mediaDevices) throw new Error('browsers give it to pages over https or from localhost only');
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' }, audio: false });
  } catch (error) {
    problem(`The camera cannot be used: ${error.message}`);
    return;
  }
  const own = stream;
  video.srcObject = own;
  await video.play();
  pressed(true);
  const card = makeCard('Camera');
  let said = 0;
  while (stream === own) {
    try {
      queue = queue.then(() => show(card, video, video.videoWidth, video.videoHeight));
      await queue;
    } catch (error) {
      problem(`The model did not answer (${error.message}).`);
      queue = Promise.resolve();
      stopCamera();
      return;
    }
    if (performance.now() - said > 4000) {
      // Not at every frame: a screen reader reads each of them out.
      said = performance.now();
      say(`Camera: ${card.text}`);
    }
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
}

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  element('video').srcObject = null;
  pressed(false);
}

function pressed(on) {
  element('camera').setAttribute('aria-pressed', String(on));
  element('camera').textContent = on ? 'Stop the camera' : 'Use the camera';
}

function listen() {
  element('choose').addEventListener('click', () => element('files').click());
  element('files').addEventListener('change', ({ target }) => {
    addFiles([...target.files]);
    target.value = '';
  });
  element('camera').addEventListener('click', () => (stream ? stopCamera() : startCamera()));
  document.addEventListener('visibilitychange', () => document.hidden && stream && stopCamera());
  element('threshold').addEventListener('input', () => {
    element('threshold-value').textContent = threshold().toFixed(2);
    for (const card of cards) if (card.outputs) paint(card);
  });
  for (const name of ['dragenter', 'dragover']) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      document.body.classList.add('dragging');
    });
  }
  document.addEventListener('dragleave', (event) => event.relatedTarget ?? document.body.classList.remove('dragging'));
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    document.body.classList.remove('dragging');
    addFiles([...event.dataTransfer.files]);
  });
}

async function start() {
  const response = await fetch(new URL('./model.json', import.meta.url));
  if (!response.ok) throw new Error(`model.json: ${response.status}`);
  about = await response.json();
  if (!(about.task in DRAWERS)) throw new Error(`nothing here draws the answers of the task ${about.task}`);
  document.title = `${about.source.replace(/\.\w+$/, '')} · ${about.task}`;
  element('title').textContent = document.title;
  element('least').hidden = about.task !== 'detection';
  const { threads } = await ask({ task: 'load', url: about.model });
  const kinds = about.classes.length === 1 ? `one class, ${about.classes[0]}` : `${about.classes.length} classes`;
  element('about').textContent = `${kinds}; ${threads === 1 ? 'one thread' : `${threads} threads`}. Photographs stay on this device.`;
  listen();
  element('choose').disabled = element('camera').disabled = false;
  say('Ready.');
  state('ready');
  // Keeps all files for the next time, with or without a network.
  await navigator.serviceWorker?.register(new URL('./sw.js', import.meta.url)).catch(() => {});
}

start().catch((error) => {
  problem(`The model could not be loaded: ${error.message}`);
  say('');
  state('stopped');
});
