// The WebSocket: frames and states in, commands out. A lost connection is made again.

const FIRST_PAUSE_MS = 250, LONGEST_PAUSE_MS = 5000;

export class Stream {
  /// `on` has frame(message), state(state), open() and lost().
  constructor(on) {
    this.on = on;
    this.pause = FIRST_PAUSE_MS;
    this.requests = new Map();
    this.number = 0;
    this.connect();
  }

  connect() {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const image = new URLSearchParams(location.search).get('image') === 'png' ? '?image=png' : '';
    const socket = this.socket = new WebSocket(`${scheme}://${location.host}/api/stream${image}`);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => { this.pause = FIRST_PAUSE_MS; this.on.open(); };
    socket.onmessage = ({ data }) => typeof data === 'string' ? this.hear(JSON.parse(data)) : this.on.frame(parse(data));
    socket.onclose = () => {
      this.on.lost();
      for (const answer of this.requests.values()) answer({ ok: false, reason: 'The connection was lost.' });
      this.requests.clear();
      setTimeout(() => this.connect(), this.pause);
      this.pause = Math.min(2 * this.pause, LONGEST_PAUSE_MS);
    };
  }

  hear(message) {
    if (message.type === 'state') this.on.state(message);
    else if (message.type === 'reply') {
      this.requests.get(message.request)?.(message);
      this.requests.delete(message.request);
    }
  }

  /// Asks for something; gives {ok, reason, path}.
  ask(command) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.resolve({ ok: false, reason: 'There is no connection.' });
    const request = ++this.number;
    this.socket.send(JSON.stringify({ request, ...command }));
    return new Promise((answer) => this.requests.set(request, answer));
  }

  /// A frame was drawn: the next one may come.
  drawn(frame_id) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: 'drawn', frame_id }));
  }
}

function parse(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const bytes = buffer.byteLength;
  return { ...head, bytes, blob: new Blob([new Uint8Array(buffer, 4 + length)], { type: head.image.type }), came: performance.now() };
}
