// Runs a program on this thread, or in a worker where it takes long: the newest request
// of each slot wins, so that a slow decoder draws fewer pictures and freezes nothing.

import { compile } from "./engine.js";

const SLOW = 8; // milliseconds
const WARM = 120; // milliseconds, at most, in which the time of a call is measured
const WARM_CALLS = 12;

/** Standard normal numbers, the same for the same seed (mulberry32, Box-Muller). */
export function normals(seed) {
  let s = seed >>> 0;
  const uniform = () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** The result for inputs by name; `noise` scales the draws, 0 gives the mean. */
function execute(run, { inputs, seed = 0, noise = 1 }) {
  for (const [name, value] of Object.entries(inputs)) {
    if (!run.inputs[name]) continue;
    if (typeof value === "number") run.inputs[name].fill(value);
    else run.inputs[name].set(value);
  }
  const drawn = `${seed} ${noise}`;
  if (run.noise.length && run.drawn !== drawn) {
    run.drawn = drawn;
    const draw = normals(seed);
    for (const array of run.noise) for (let i = 0; i < array.length; i++) array[i] = noise * draw();
  }
  run.run();
  return Object.values(run.outputs)[0];
}

/** The other side: this script, run as a worker. */
export function serve() {
  let run = null;
  self.onmessage = ({ data }) => {
    if (data.program) run = compile(data.program);
    else self.postMessage({ id: data.id, found: execute(run, data.request).slice() });
  };
}

export class Runner {
  constructor(program, url, slow = SLOW) {
    this.run = compile(program);
    this.pending = new Map();
    this.calls = new Map();
    this.id = 0;
    this.worker = null;
    const zeros = { inputs: {} };
    // The first calls are slow: they make tables, and the browser compiles the loops.
    this.milliseconds = Infinity;
    const start = performance.now();
    for (let call = 0; call < WARM_CALLS && performance.now() - start < WARM; call++) {
      const before = performance.now();
      execute(this.run, zeros);
      this.milliseconds = Math.min(this.milliseconds, performance.now() - before);
    }
    if (this.milliseconds > slow && url) {
      try {
        const worker = new Worker(url);
        worker.onmessage = ({ data }) => this.answer(data);
        worker.onerror = () => {
          this.worker = null;
          this.next();
        };
        worker.postMessage({ program });
        this.worker = worker;
      } catch {
        this.worker = null;
      }
    }
  }

  /** Computes at once, on this thread. */
  now(request) {
    return execute(this.run, request);
  }

  /** Calls `done` with the result, unless a newer request of the slot comes first. */
  ask(slot, request, done) {
    if (!this.worker) {
      done(execute(this.run, request).slice());
      return;
    }
    this.pending.delete(slot);
    this.pending.set(slot, { request: { ...request, inputs: { ...request.inputs } }, done });
    if (slot === "main") this.pending = new Map([["main", this.pending.get("main")], ...this.pending]);
    this.next();
  }

  next() {
    if (this.calls.size || !this.pending.size) return;
    const [slot, { request, done }] = this.pending.entries().next().value;
    this.pending.delete(slot);
    if (!this.worker) {
      done(execute(this.run, request).slice());
      this.next();
      return;
    }
    const id = ++this.id;
    this.calls.set(id, done);
    this.worker.postMessage({ id, request });
  }

  answer({ id, found }) {
    const done = this.calls.get(id);
    this.calls.delete(id);
    this.next();
    done(found);
  }
}
