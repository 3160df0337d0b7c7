// The last seconds of frames, to pause and step through.

const KEPT_MS = 10000, KEPT_BYTES = 96 << 20;

export class Replay {
  frames = [];
  bytes = 0;
  /// Position of the frame that is looked at; null while live.
  at = null;

  add(frame) {
    this.frames.push(frame);
    this.bytes += frame.bytes;
    // While somebody steps, what they look at stays.
    while (this.at === null && this.frames.length > 1
      && (this.bytes > KEPT_BYTES || frame.came - this.frames[0].came > KEPT_MS)) this.bytes -= this.frames.shift().bytes;
    if (this.at !== null && this.bytes > 2 * KEPT_BYTES) this.bytes -= this.frames.pop().bytes;
  }

  get paused() { return this.at !== null; }

  pause(frame) {
    const at = this.frames.indexOf(frame);
    this.at = at < 0 ? this.frames.length - 1 : at;
  }

  live() { this.at = null; }

  /// The frame so many frames on.
  step(by) {
    if (this.at === null) this.at = this.frames.length - 1;
    this.at = Math.max(0, Math.min(this.frames.length - 1, this.at + by));
    return this.frames[this.at];
  }
}
