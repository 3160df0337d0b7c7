// Small charts on canvases.

const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function begin(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = '11px system-ui, sans-serif';
  return { context, width, height };
}

/// The least round number of 1, 2 and 5 times a power of ten that is not below a value.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/// Lines over time: `series` are {name, values, colour}; the newest values are at the right.
export function lines(canvas, series, { unit, most }) {
  const { context, width, height } = begin(canvas);
  if (width === 0) return;
  const [left, bottom] = [30, height - 13];
  const top = 4;
  const highest = roundUp(Math.max(1, ...series.flatMap(({ values }) => values)));
  context.strokeStyle = styleOf('--line');
  context.fillStyle = styleOf('--soft');
  context.lineWidth = 1;
  for (const share of [0, 0.5, 1]) {
    const y = bottom - share * (bottom - top);
    context.beginPath();
    context.moveTo(left, y + 0.5);
    context.lineTo(width, y + 0.5);
    context.stroke();
    context.textAlign = 'right';
    context.fillText(String(+(share * highest).toPrecision(3)), left - 4, y + 4);
  }
  let keyX = left;
  context.textAlign = 'left';
  for (const { name, values, colour } of series) {
    context.strokeStyle = context.fillStyle = styleOf(colour);
    context.lineWidth = 1.5;
    context.beginPath();
    values.forEach((value, index) => {
      const x = width - (values.length - 1 - index) / Math.max(1, most - 1) * (width - left);
      const y = bottom - Math.min(1, value / highest) * (bottom - top);
      if (index === 0) context.moveTo(x, y); else context.lineTo(x, y);
    });
    context.stroke();
    context.fillText(`${name} ${unit}`, keyX, height - 2);
    keyX += context.measureText(`${name} ${unit}`).width + 12;
  }
  context.fillStyle = styleOf('--soft');
  context.textAlign = 'right';
  context.fillText(`${Math.round(most / 60)} min to now`, width, height - 2);
}

/// Bars: `bins` are {le_ms, frames}, the last without an end.
export function histogram(canvas, bins) {
  const { context, width, height } = begin(canvas);
  const first = bins.findIndex(({ frames }) => frames > 0);
  if (width === 0 || first < 0) return;
  const last = bins.findLastIndex(({ frames }) => frames > 0);
  const shown = bins.slice(Math.max(0, first - 1), last + 2);
  const most = Math.max(...shown.map(({ frames }) => frames));
  const step = width / shown.length, bottom = height - 13;
  shown.forEach(({ le_ms, frames }, index) => {
    const tall = frames / most * (bottom - 14);
    context.fillStyle = styleOf('--stage-1');
    context.fillRect(index * step + 1, bottom - tall, step - 2, tall);
    context.fillStyle = styleOf('--soft');
    context.textAlign = 'center';
    if (frames > 0) context.fillText(String(frames), (index + 0.5) * step, bottom - tall - 3);
    context.fillText(le_ms === null ? 'more' : `≤${le_ms}`, (index + 0.5) * step, height - 2);
  });
}

/// A line of values from 0 to 1.
export function sparkline(canvas, values, colour) {
  const { context, width, height } = begin(canvas);
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  values.forEach((value, index) => {
    const x = width * index / Math.max(1, values.length - 1), y = height - 2 - value * (height - 4);
    if (index === 0) context.moveTo(x, y); else context.lineTo(x, y);
  });
  context.stroke();
}
