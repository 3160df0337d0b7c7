// The table of tracks.

import { sparkline } from './charts.js';
import { colourOf, nameOf } from './view.js';

const REMEMBERED = 90;
/// The table is for eyes: a few times a second are enough.
const EVERY_MS = 200;

export class Tracks {
  known = new Map();
  shown = 0;

  constructor(body, none, choose) {
    Object.assign(this, { body, none, choose });
  }

  /// Notes a live frame.
  note({ packet }) {
    for (const object of packet.objects) {
      const track = this.known.get(object.track_id) ?? { since: packet.timestamp, scores: [] };
      track.scores.push(object.score);
      if (track.scores.length > REMEMBERED) track.scores.shift();
      track.seen = packet.timestamp;
      this.known.set(object.track_id, track);
    }
    for (const [id, track] of this.known) if (Math.abs(packet.timestamp - track.seen) > 30) this.known.delete(id);
  }

  show(frame, chosen, now) {
    if (now - this.shown < EVERY_MS) return;
    this.shown = now;
    const { packet, spacing_mm } = frame;
    this.none.hidden = packet.objects.length > 0;
    this.body.replaceChildren(...packet.objects.map((object) => this.row(object, packet, spacing_mm, chosen)));
    for (const canvas of this.body.querySelectorAll('canvas')) {
      const id = Number(canvas.dataset.track);
      sparkline(canvas, this.known.get(id)?.scores ?? [], colourOf(id));
    }
  }

  row(object, packet, spacing_mm, chosen) {
    const row = document.createElement('tr');
    const { track_id } = object;
    row.classList.toggle('chosen', track_id === chosen);
    row.tabIndex = 0;
    row.dataset.track = track_id;
    row.addEventListener('click', () => this.choose(track_id));
    row.addEventListener('keydown', (event) => { if (event.key === 'Enter') this.choose(track_id); });
    const cell = (text) => {
      const td = document.createElement('td');
      td.textContent = text;
      row.append(td);
      return td;
    };
    const name = cell('');
    const swatch = document.createElement('span');
    swatch.className = 'swatch';
    swatch.classList.toggle('dashed', !object.confirmed);
    swatch.classList.toggle('pointed', !!object.prompt);
    swatch.style.borderColor = colourOf(track_id);
    name.append(swatch, nameOf(object));
    if (object.prompt) name.title = 'pointed at';
    const since = this.known.get(track_id)?.since ?? packet.timestamp;
    cell(`${Math.max(0, packet.timestamp - since).toFixed(1)} s`);
    cell(object.score.toFixed(2));
    const mm2 = spacing_mm && `${(object.areaPx * spacing_mm[0] * spacing_mm[1]).toFixed(1)} mm²`;
    cell(mm2 ?? `${object.areaPx} px`).title = `${object.areaPx} px${mm2 ? `, ${mm2}` : ''}`;
    cell(object.quality ? object.quality.mean.toFixed(2) : '–').title = object.quality
      ? Object.entries(object.quality).map(([name, value]) => `${name} ${value.toFixed(2)}`).join(', ') : 'not computed';
    const canvas = document.createElement('canvas');
    canvas.dataset.track = track_id;
    cell('').append(canvas);
    return row;
  }
}
