// Puts the page together.

import { Panels, showState } from './panels.js';
import { pointing } from './pointer.js';
import { Replay } from './replay.js';
import { Stream } from './stream.js';
import { Tracks } from './tracks.js';
import { View } from './view.js';

const byId = (id) => document.getElementById(id);
/// A picture older than this is not live.
const OLD_MS = 2000;

const view = new View(byId('screen'), byId('picture'), byId('overlay'));
const replay = new Replay();
const panels = new Panels();
let waiting = null, busy = false, online = false, state = null;

const tracks = new Tracks(byId('tracks'), byId('no-tracks'), (id) => {
  view.chosen = view.chosen === id ? null : id;
  tracks.shown = 0;
  if (view.frame) show(view.frame);
});

const stream = new Stream({
  open() { online = true; panels.load(); },
  lost() {
    online = false;
    showState('OFFLINE', 'trying again');
    freshness();
  },
  state(now) { state = now; panels.show(now); },
  frame(frame) {
    replay.add(frame);
    tracks.note(frame);
    // A newer frame wins; the one that it pushes out counts as drawn.
    if (waiting) stream.drawn(waiting.packet.frame_id);
    waiting = frame;
    next();
  },
});

/// Prepares and draws the newest frame, at the screen's pace.
async function next() {
  if (busy || !waiting) return;
  busy = true;
  const frame = waiting;
  waiting = null;
  try {
    if (!replay.paused) {
      await view.prepare(frame);
      await new Promise(requestAnimationFrame);
      if (!replay.paused) show(frame);
    }
  } finally {
    stream.drawn(frame.packet.frame_id);
    busy = false;
    next();
  }
}

function show(frame) {
  view.draw(frame);
  tracks.show(frame, view.chosen, performance.now());
  byId('timestamp').textContent = `${frame.packet.timestamp.toFixed(3)} s`;
  scaleBar(frame);
  freshness();
}

/// Says how old the picture is, and never shows an old one as live.
function freshness() {
  const { frame } = view;
  const since = frame ? performance.now() - frame.came : 0;
  const old = !frame || since > OLD_MS || !online;
  byId('screen').classList.toggle('old', old && !replay.paused);
  byId('mode').textContent = replay.paused ? 'paused' : old ? 'not live' : 'live';
  byId('age').textContent = frame ? `${Math.round(frame.age_ms + (replay.paused ? 0 : since))} ms old` : '';
  const banner = byId('banner');
  banner.hidden = !old || replay.paused;
  banner.textContent = !online ? 'No connection to ultramotion' : !frame ? 'No frame yet' : `No frame for ${(since / 1000).toFixed(0)} s`;
}
setInterval(freshness, 500);

function scaleBar({ image, spacing_mm }) {
  const shownPx = byId('overlay').clientWidth / image.width;
  const perUnit = spacing_mm ? shownPx / spacing_mm[0] : shownPx;
  const lengths = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500];
  const length = lengths.findLast((length) => length * perUnit <= byId('overlay').clientWidth / 4) ?? lengths[0];
  byId('scale').hidden = false;
  byId('scale-bar').style.width = `${length * perUnit}px`;
  byId('scale-text').textContent = `${length} ${spacing_mm ? 'mm' : 'px'}`;
}

function say(text, good) {
  const message = byId('message');
  message.textContent = text;
  message.classList.toggle('good', good);
}

const pointer = pointing(view, {
  ask: (command) => stream.ask(command),
  say,
  label: byId('label'),
  mayPoint() {
    if (!replay.paused && online) return true;
    say('Go live first: what is pointed at is looked for in the next frame.', false);
    return false;
  },
});

async function step(by) {
  if (replay.frames.length === 0) return;
  if (!replay.paused) replay.pause(view.frame);
  pausedOrLive();
  show(await view.prepare(replay.step(by)));
}

function pause() {
  if (replay.paused) replay.live(); else if (view.frame) replay.pause(view.frame);
  pausedOrLive();
  freshness();
}

function pausedOrLive() {
  byId('pause').textContent = replay.paused ? 'Go live' : 'Pause';
  byId('pause').setAttribute('aria-pressed', replay.paused);
}

async function save() {
  const { frame } = view;
  if (!frame) return say('There is no frame to save.', false);
  const link = document.createElement('a');
  const blob = await new Promise((done) => view.composed().toBlob(done, 'image/png'));
  link.href = URL.createObjectURL(blob);
  link.download = `ultramotion-frame-${String(frame.packet.frame_id).padStart(6, '0')}.png`;
  link.click();
  URL.revokeObjectURL(link.href);
  if (!state?.recording) return say('The view was saved by the browser; with a recording the frame itself is kept too.', true);
  const reply = await stream.ask({ type: 'save', frame_id: frame.packet.frame_id });
  say(reply.ok ? `Saved by the browser, and the frame in ${reply.path}` : reply.reason, reply.ok);
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  localStorage.setItem('theme', root.dataset.theme);
  panels.charts();
}
const kept = localStorage.getItem('theme');
if (kept === 'dark' || kept === 'light') document.documentElement.dataset.theme = kept;

function fullscreen() {
  if (document.fullscreenElement) document.exitFullscreen(); else byId('stage').requestFullscreen();
}

for (const layer of Object.keys(view.layers)) {
  byId(`layer-${layer}`).addEventListener('change', ({ target }) => {
    view.layers[layer] = target.checked;
    view.drawOverlay();
  });
}
const actions = { pause, save, theme, fullscreen, back: () => step(-1), forward: () => step(1), 'let-go': () => pointer.letGo() };
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener('click', action);
const keys = { ' ': pause, s: save, t: theme, f: fullscreen, ArrowLeft: () => step(-1), ArrowRight: () => step(1), Escape: () => pointer.letGo() };
document.addEventListener('keydown', (event) => {
  const typing = event.target instanceof HTMLInputElement && event.target.type !== 'checkbox';
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  // A button that has the focus keeps its space.
  if (event.key === ' ' && event.target instanceof HTMLButtonElement) return;
  const layer = Object.keys(view.layers)[Number(event.key) - 1];
  if (layer) return byId(`layer-${layer}`).click();
  const action = keys[event.key];
  if (action) { event.preventDefault(); action(); }
});

/// For scripts: what is shown.
window.ultramotion = { get frame() { return view.frame; }, get state() { return state; }, stream };
