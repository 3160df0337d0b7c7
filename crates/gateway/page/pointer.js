// Point and follow: clicks and boxes become commands.

const DRAG_PX = 6;

/// `ask` sends a command and gives its reply; `say` shows a sentence.
export function pointing(view, { ask, say, label, mayPoint }) {
  const { overlay } = view;
  let from = null;

  const prompted = () => (view.frame?.packet.objects ?? []).filter((object) => object.prompt);
  const answer = (reply, words) => say(reply.ok ? words : reply.reason, reply.ok);
  const named = () => label.value.trim() ? { label: label.value.trim() } : {};

  /// The object that was pointed at which is under a point, or else nearest to it.
  function near([x, y]) {
    const distance = ({ box_xyxy: [l, t, r, b] }) => Math.hypot(Math.max(l - x, x - r, 0), Math.max(t - y, y - b, 0));
    return prompted().sort((a, b) => distance(a) - distance(b))[0];
  }

  async function point([x, y], beside) {
    if (!mayPoint()) return;
    if (!beside) {
      answer(await ask({ type: 'follow', points: [{ x, y }], ...named() }), 'Followed from the next frame on.');
      return;
    }
    const object = near([x, y]);
    if (!object) return say('Nothing that was pointed at is there to be told what does not belong to it.', false);
    answer(await ask({ type: 'refine', track_id: object.track_id, point: { x, y, positive: false } }), 'That is left out.');
  }

  async function box(box_xyxy) {
    if (!mayPoint()) return;
    answer(await ask({ type: 'follow', box_xyxy, ...named() }), 'Followed from the next frame on.');
  }

  async function letGo() {
    const one = prompted().find((object) => object.track_id === view.chosen);
    if (prompted().length === 0) return say('Nothing was pointed at.', false);
    answer(await ask(one ? { type: 'let_go', track_id: one.track_id } : { type: 'let_go' }), 'Let go.');
  }

  const sorted = ([ax, ay], [bx, by]) => [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  overlay.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || !view.frame) return;
    from = { point: view.pointOf(event), x: event.clientX, y: event.clientY };
    overlay.setPointerCapture(event.pointerId);
  });
  overlay.addEventListener('pointermove', (event) => {
    if (!from || (!view.rubber && Math.hypot(event.clientX - from.x, event.clientY - from.y) < DRAG_PX)) return;
    view.rubber = sorted(from.point, view.pointOf(event));
    view.drawOverlay();
  });
  const end = (event, taken) => {
    if (!from) return;
    const { rubber } = view, { point: at } = from;
    [from, view.rubber] = [null, null];
    view.drawOverlay();
    if (!taken) return;
    if (rubber) box(rubber); else point(at, event.shiftKey);
  };
  overlay.addEventListener('pointerup', (event) => end(event, true));
  overlay.addEventListener('pointercancel', (event) => end(event, false));
  return { letGo };
}
