// The state in words and figures.

import { histogram, lines } from './charts.js';

const byId = (id) => document.getElementById(id);
const ms = (value) => value >= 100 ? value.toFixed(0) : value.toFixed(1);

const WORDS = {
  VISIBLE: 'Visible', RELOCALIZING: 'Relocalizing', LOST: 'Lost', WAITING: 'Waiting for frames', SILENT: 'Scanner is silent',
  SOURCE_LOST: 'Scanner lost', REBUILDING: 'Pipeline restarts', UNPLACED: 'A tool is not seen', SHUTTING_DOWN: 'Shutting down',
  OFFLINE: 'No connection', FAULT: 'A network fails',
};
const STAGES = ['upload', 'detect', 'match', 'segment', 'download', 'other'];
const HISTORY_S = 600;

export function showState(name, detail = '') {
  const badge = byId('state'), word = WORDS[name] ?? name;
  badge.dataset.state = name;
  // Only what is new is read out.
  if (byId('state-word').textContent !== word) byId('state-word').textContent = word;
  byId('state-detail').textContent = detail;
}

/// Terms and values, with those over their budget marked.
function list(id, entries) {
  byId(id).replaceChildren(...entries.flatMap(([term, value, over]) => {
    const [dt, dd] = [document.createElement('dt'), document.createElement('dd')];
    dt.textContent = term;
    dd.textContent = value;
    dd.classList.toggle('over', !!over);
    return [dt, dd];
  }));
}

const span = (seconds) => seconds < 120 ? `${seconds.toFixed(0)} s`
  : seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;

export class Panels {
  history = [];

  async load() {
    const answer = await fetch(`/api/history?seconds=${HISTORY_S}`);
    if (answer.ok) this.history = (await answer.json()).rows;
  }

  show(state) {
    showState(state.fault ? 'FAULT' : state.state, state.fault ? `the ${state.fault}’s answers are no numbers` : `for ${span(state.state_since_s)}`);
    this.latency(state);
    this.frames(state);
    this.device(state);
    this.source(state);
    const { rates, latency_ms, tracks } = state;
    this.history.push([state.time_s, rates.in_per_s, rates.out_per_s, latency_ms.minute.p50, latency_ms.minute.p99, rates.dropped_per_s, tracks, state.state]);
    if (this.history.length > HISTORY_S) this.history.shift();
    this.charts();
  }

  latency({ latency_ms }) {
    for (const which of ['minute', 'start']) {
      const { p50, p90, p99, p999, max } = latency_ms[which];
      const cells = byId(`latency-${which}`).querySelectorAll('td');
      [p50, p90, p99, p999, max].forEach((value, index) => { cells[index].textContent = ms(value); });
    }
    const stages = latency_ms.stages_minute;
    const total = STAGES.reduce((sum, stage) => sum + stages[stage], 0) || 1;
    byId('stages').replaceChildren(...STAGES.map((stage, index) => {
      const part = document.createElement('span');
      part.className = `stage-${index}`;
      part.style.flexGrow = stages[stage] / total;
      part.title = `${stage} ${ms(stages[stage])} ms`;
      return part;
    }));
    byId('stages').setAttribute('aria-label', STAGES.map((stage) => `${stage} ${ms(stages[stage])} ms`).join(', '));
    byId('stages-key').replaceChildren(...STAGES.map((stage, index) => {
      const [key, colour] = [document.createElement('span'), document.createElement('i')];
      colour.className = `stage-${index}`;
      key.append(colour, `${stage} ${ms(stages[stage])}`);
      return key;
    }));
    histogram(byId('histogram'), latency_ms.histogram_minute);
  }

  frames({ frames, rates, age_ms }) {
    const dropped = Object.entries(frames.dropped).filter(([, count]) => count > 0);
    const all = dropped.reduce((sum, [, count]) => sum + count, 0);
    const reasons = dropped.map(([reason, count]) => `${reason} ${count}`).join(', ');
    list('frames', [
      ['in, out', `${rates.in_per_s.toFixed(1)}, ${rates.out_per_s.toFixed(1)} a second`],
      ['received', `${frames.received} = ${frames.answered} answered + ${all} dropped + ${frames.in_flight} in flight`],
      ['dropped', `${rates.dropped_per_s.toFixed(1)} a second${reasons ? `; in all ${reasons}` : ''}`],
      ['age', `p50 ${ms(age_ms.p50)}, p99 ${ms(age_ms.p99)} ms ${age_ms.clocks_agree ? 'by the scanner’s clock' : 'since arrival'}`],
    ]);
  }

  device({ device, per_frame, recording, prompts, version, time_s }) {
    const budget = { h2d: 1, d2h: 1, host_syncs: 1, allocations: 0 };
    const over = device.residency === 'device' && Object.keys(budget).some((key) => per_frame[key] > budget[key]);
    list('device', [
      ['computes', device.name ? `${device.name}, ${device.precision}, residency ${device.residency}, matcher ${device.matcher}` : '–'],
      ...(device.fallback ? [['instead', device.fallback]] : []),
      ['a frame', `copies in ${per_frame.h2d} of 1, out ${per_frame.d2h} of 1, waits ${per_frame.host_syncs} of 1, allocations ${per_frame.allocations} of 0`, over],
      ['memory', device.memory_mb === null ? '–' : `${device.memory_mb.toFixed(0)} MB`],
      ['followed', prompts.most > 0 ? `${prompts.followed} of ${prompts.most} that can be pointed at` : 'nothing can be pointed at here'],
      ['recording', recording ? `${recording.frames} frames in ${recording.folder}, ${recording.free_mb} MB left${recording.failed ? ', FAILED' : ''}` : 'off', recording?.failed],
      ['program', `${version}, up for ${span(time_s)}`],
    ]);
  }

  source({ source, clients, viewers, complaints }) {
    const size = source.frame_size ? `, ${source.frame_size.join('×')}` : '';
    list('source', [
      ['source', `${source.url}, ${source.connected ? 'connected' : 'not connected'}${size}`, !source.connected],
      ['reconnects', source.reconnects],
      ['pages', viewers],
    ]);
    byId('clients').replaceChildren(...clients.map((client) => {
      const row = document.createElement('tr');
      for (const text of [`${client.address} (v${client.header_version})`, client.sent, client.dropped, client.receives.join(', ')]) {
        const cell = document.createElement('td');
        cell.textContent = text;
        cell.title = text;
        row.append(cell);
      }
      return row;
    }));
    const kinds = Object.entries(complaints);
    byId('complaints').textContent = kinds.length ? `Complaints: ${kinds.map(([kind, count]) => `${kind} ${count}`).join(', ')}` : '';
  }

  charts() {
    const column = (index) => this.history.map((row) => row[index]);
    lines(byId('history-rates'), [
      { name: 'in', values: column(1), colour: '--stage-1' }, { name: 'out', values: column(2), colour: '--good' },
    ], { unit: '/s', most: HISTORY_S });
    lines(byId('history-latency'), [
      { name: 'p99', values: column(4), colour: '--warn' }, { name: 'p50', values: column(3), colour: '--good' },
    ], { unit: 'ms', most: HISTORY_S });
  }
}
