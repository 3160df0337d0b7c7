// The picture, and what is drawn over it.

import { decode, outline, area } from './mask.js';

/// After Okabe and Ito (2008): told apart on grey, and without seeing red from green.
const COLOURS = ['#e69f00', '#56b4e9', '#f0e442', '#2fc79a', '#cc79a7', '#ff7a45', '#9fd3ff', '#ffffff'];

/// An identity keeps its colour.
export const colourOf = (trackId) => COLOURS[(((trackId - 1) % COLOURS.length) + COLOURS.length) % COLOURS.length];

/// Identities of what was pointed at begin behind this.
const PROMPT_IDS = 1000000000;

/// What an object is called: its label and identity, with a P for what was pointed at.
export const nameOf = ({ label, track_id, prompt }) => `${label} ${prompt ? `P${track_id - PROMPT_IDS}` : track_id}`;

export class View {
  layers = { outlines: true, fill: false, boxes: false, labels: true, scores: true };
  frame = null;
  chosen = null;
  /// A box that is being dragged, in pixels of the frame.
  rubber = null;

  constructor(screen, picture, overlay) {
    Object.assign(this, { screen, picture, overlay });
    new ResizeObserver(() => this.drawOverlay()).observe(screen);
  }

  /// Decodes a frame's picture and masks; what is decoded once stays with the frame.
  async prepare(frame) {
    if (frame.image.type !== 'none') frame.bitmap ??= await createImageBitmap(frame.blob);
    for (const object of frame.packet.objects) {
      if (object.decoded) continue;
      object.decoded = decode(object.mask);
      object.path = outline(object.decoded);
      object.areaPx = area(object.decoded);
    }
    return frame;
  }

  draw(frame) {
    this.frame = frame;
    const { width, height } = frame.image;
    if (this.picture.width !== width || this.picture.height !== height) {
      [this.picture.width, this.picture.height] = [width, height];
      this.screen.style.aspectRatio = `${width} / ${height}`;
    }
    const context = this.picture.getContext('2d');
    if (frame.bitmap) context.drawImage(frame.bitmap, 0, 0);
    else context.clearRect(0, 0, width, height);
    this.drawOverlay();
  }

  drawOverlay() {
    const { overlay, frame } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(overlay.clientWidth * ratio), Math.round(overlay.clientHeight * ratio)];
    if (overlay.width !== width || overlay.height !== height) [overlay.width, overlay.height] = [width, height];
    const context = overlay.getContext('2d');
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!frame) return;
    overlay.dataset.frameId = frame.packet.frame_id;
    const scale = width / frame.image.width;
    context.setTransform(scale, 0, 0, height / frame.image.height, 0, 0);
    const line = 2 * ratio / scale;
    const objects = frame.packet.objects;
    for (const object of objects) this.drawObject(context, object, line);
    if (this.layers.labels || this.layers.scores) for (const object of objects) this.drawLabel(context, object, ratio / scale);
    if (this.rubber) {
      const [left, top, right, bottom] = this.rubber;
      context.setLineDash([4 * line, 3 * line]);
      context.strokeStyle = '#fff';
      context.lineWidth = line;
      context.strokeRect(left, top, right - left, bottom - top);
      context.setLineDash([]);
    }
  }

  drawObject(context, object, line) {
    const colour = colourOf(object.track_id);
    const [left, top, right, bottom] = object.box_xyxy;
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = object.track_id === this.chosen ? 2 * line : line;
    context.setLineDash(object.confirmed ? [] : [4 * line, 3 * line]);
    if (this.layers.fill) {
      context.globalAlpha = 0.3;
      const { inside, width, box: [l, t, r, b] } = object.decoded;
      for (let y = t; y < b; y++) for (let x = l; x < r; x++) {
        if (!inside[y * width + x]) continue;
        const from = x;
        while (x < r && inside[y * width + x]) x++;
        context.fillRect(from, y, x - from, 1);
      }
      context.globalAlpha = 1;
    }
    if (this.layers.outlines) context.stroke(object.path);
    if (this.layers.boxes) context.strokeRect(left, top, right - left, bottom - top);
    context.setLineDash([]);
    if (object.prompt) {
      const [x, y] = [(left + right) / 2, (top + bottom) / 2];
      context.beginPath();
      context.moveTo(x - 5 * line, y);
      context.lineTo(x + 5 * line, y);
      context.moveTo(x, y - 5 * line);
      context.lineTo(x, y + 5 * line);
      context.stroke();
    }
  }

  drawLabel(context, object, px) {
    const words = [];
    if (this.layers.labels) words.push(nameOf(object));
    if (this.layers.scores) words.push(object.score.toFixed(2));
    const text = words.join('  ');
    context.font = `600 ${13 * px}px system-ui, sans-serif`;
    const width = context.measureText(text).width + 8 * px;
    const [left, top, , bottom] = object.box_xyxy;
    const x = Math.max(0, Math.min(left, this.frame.image.width - width));
    const y = top >= 20 * px ? top - 20 * px : Math.min(bottom + 2 * px, this.frame.image.height - 18 * px);
    context.fillStyle = '#000b';
    context.fillRect(x, y, width, 18 * px);
    context.fillStyle = colourOf(object.track_id);
    context.fillText(text, x + 4 * px, y + 13.5 * px);
  }

  /// Where the pointer is, in pixels of the frame.
  pointOf(event) {
    const { left, top, width, height } = this.overlay.getBoundingClientRect();
    const [w, h] = this.frame ? [this.frame.image.width, this.frame.image.height] : [0, 0];
    return [(event.clientX - left) / width * w, (event.clientY - top) / height * h];
  }

  /// The picture as it is seen.
  composed() {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [this.overlay.width, this.overlay.height];
    const context = canvas.getContext('2d');
    context.drawImage(this.picture, 0, 0, canvas.width, canvas.height);
    context.drawImage(this.overlay, 0, 0);
    return canvas;
  }
}
