// Runs the programs that flaxvae/latent/explorer/program.py writes: each value is one
// Float32Array, allocated once; each step is a closure over its arrays. Steps that are
// the same for all inputs run once, when the program is compiled.

const product = (numbers) => numbers.reduce((a, b) => a * b, 1);

const strides = (shape) => shape.map((_, i) => product(shape.slice(i + 1)));

/** Bytes of base64. */
export function decodeBytes(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

let halves = null;

/** Float16 bytes as numbers of float32. */
export function decodeHalves(bytes, offset, count) {
  if (!halves) {
    halves = new Float32Array(65536);
    for (let h = 0; h < 65536; h++) {
      const e = (h >> 10) & 31;
      const m = h & 1023;
      const size = e === 0 ? m * 2 ** -24 : e < 31 ? (1 + m / 1024) * 2 ** (e - 15) : m ? NaN : Infinity;
      halves[h] = h >> 15 ? -size : size;
    }
  }
  const out = new Float32Array(count);
  for (let i = 0, at = offset; i < count; i++, at += 2) {
    out[i] = halves[bytes[at] | (bytes[at + 1] << 8)];
  }
  return out;
}

// Abramowitz and Stegun, 7.1.26: an error of 1.5e-7 at most.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const y = 1 - p * Math.exp(-x * x);
  return x < 0 ? -y : y;
}

const roundEven = (x) => {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
};

const HELPERS = { erf, roundEven };

// Element-wise operations as expressions, from which loops are generated.
const EXPRESSIONS = {
  neg: "-a",
  abs: "Math.abs(a)",
  sign: "Math.sign(a)",
  exp: "Math.exp(a)",
  exp2: "2 ** a",
  log: "Math.log(a)",
  log1p: "Math.log1p(a)",
  expm1: "Math.expm1(a)",
  tanh: "Math.tanh(a)",
  logistic: "1 / (1 + Math.exp(-a))",
  erf: "erf(a)",
  erfc: "1 - erf(a)",
  sin: "Math.sin(a)",
  cos: "Math.cos(a)",
  tan: "Math.tan(a)",
  sinh: "Math.sinh(a)",
  cosh: "Math.cosh(a)",
  asinh: "Math.asinh(a)",
  acosh: "Math.acosh(a)",
  atanh: "Math.atanh(a)",
  asin: "Math.asin(a)",
  acos: "Math.acos(a)",
  atan: "Math.atan(a)",
  sqrt: "Math.sqrt(a)",
  rsqrt: "1 / Math.sqrt(a)",
  cbrt: "Math.cbrt(a)",
  square: "a * a",
  floor: "Math.floor(a)",
  ceil: "Math.ceil(a)",
  round: "Math.sign(a) * Math.round(Math.abs(a))",
  round_even: "roundEven(a)",
  trunc: "Math.trunc(a)",
  bool: "+(a !== 0)",
  not: "1 - a",
  invert: "~a",
  is_finite: "+Number.isFinite(a)",
  add: "a + b",
  sub: "a - b",
  mul: "a * b",
  div: "a / b",
  idiv: "Math.trunc(a / b)",
  rem: "a % b",
  max: "a > b || a !== a ? a : b",
  min: "a < b || a !== a ? a : b",
  pow: "a ** b",
  atan2: "Math.atan2(a, b)",
  eq: "+(a === b)",
  ne: "+(a !== b)",
  lt: "+(a < b)",
  le: "+(a <= b)",
  gt: "+(a > b)",
  ge: "+(a >= b)",
  and: "a & b",
  or: "a | b",
  xor: "a ^ b",
  clamp: "b < a ? a : b > c ? c : b",
  select: "a ? c : b",
};

function expressionOf(operation, params) {
  if (operation === "integer_pow") {
    const n = Math.abs(params.power);
    const whole = n <= 8 ? Array(n).fill("a").join(" * ") || "1" : `a ** ${n}`;
    return params.power < 0 ? `1 / (${whole})` : whole;
  }
  return EXPRESSIONS[operation];
}

/**
 * A program as a function.
 *
 * Returns `inputs` and `outputs`, arrays by name, `shapes` of both, `noise`, arrays to be
 * filled with standard normal numbers, and `run()`, which computes the outputs.
 */
export function compile(program) {
  const bytes = decodeBytes(program.data);
  const sizes = program.values.map(product);
  const arrays = Array(sizes.length).fill(null);
  const alias = sizes.map((_, i) => i);
  const root = (v) => {
    while (alias[v] !== v) v = alias[v];
    return v;
  };
  for (const [value, offset, kind] of program.constants) {
    const n = sizes[value];
    if (kind === "h") arrays[value] = decodeHalves(bytes, offset, n);
    else {
      const part = bytes.buffer.slice(offset, offset + 4 * n);
      arrays[value] = kind === "f" ? new Float32Array(part) : Float32Array.from(new Int32Array(part));
    }
  }
  const link = (steps) => {
    for (const [operation, results, operands, params] of steps) {
      if (operation === "copy") alias[results[0]] = operands[0];
      if (params.steps) link(params.steps);
    }
  };
  link(program.steps);
  const array = (v) => {
    const r = root(v);
    return (arrays[r] ??= new Float32Array(sizes[r]));
  };
  const context = { array, sizes, root, shapes: program.values };
  const outputs = Object.values(program.outputs);
  const fixed = program.steps.filter((step) => step[4]);
  const rest = program.steps.filter((step) => !step[4]);
  const readByRest = new Set([...outputs, ...operandsOf(rest)].map(root));
  for (const f of compileSteps(fixed, context, readByRest)) f();
  const run = compileSteps(rest, context, new Set(outputs.map(root)));
  const named = (values) => Object.fromEntries(Object.entries(values).map(([name, v]) => [name, array(v)]));
  const shapesOf = (values) => Object.fromEntries(Object.entries(values).map(([name, v]) => [name, program.values[v]]));
  return {
    inputs: named(program.inputs),
    outputs: named(program.outputs),
    shapes: { ...shapesOf(program.inputs), ...shapesOf(program.outputs) },
    noise: program.noise.map(array),
    run() {
      for (const f of run) f();
    },
  };
}

function operandsOf(steps) {
  return steps.flatMap(([, , operands, params]) => [
    ...operands,
    ...(params.steps ? [...operandsOf(params.steps), ...params.results] : []),
  ]);
}

/** Functions that run the steps; neighbouring element-wise steps become one loop. */
function compileSteps(steps, context, wanted) {
  const { root, sizes } = context;
  const kept = steps.filter(([operation]) => operation !== "copy");
  const uses = new Map();
  for (const v of operandsOf(kept)) uses.set(root(v), (uses.get(root(v)) ?? 0) + 1);
  const found = [];
  let group = [];
  const close = () => {
    if (group.length) found.push(fuse(group, context, uses, wanted));
    group = [];
  };
  for (const step of kept) {
    const [operation, results] = step;
    if (!expressionOf(operation, step[3])) {
      close();
      found.push(compileStep(step, context));
      continue;
    }
    if (group.length && sizes[results[0]] !== sizes[group[0][1][0]]) close();
    group.push(step);
  }
  close();
  return found;
}

/** One loop over steps of one size; numbers that no other step reads are not stored. */
function fuse(group, { array, root, sizes }, uses, wanted) {
  const n = sizes[group[0][1][0]];
  const inner = new Map(); // value of this loop -> its name
  const outer = new Map(); // array -> its name
  const before = [];
  const lines = [];
  const readHere = new Map();
  for (const [, , operands] of group) {
    for (const v of operands) readHere.set(root(v), (readHere.get(root(v)) ?? 0) + 1);
  }
  const given = [];
  const nameOf = (v) => {
    const r = root(v);
    if (inner.has(r)) return inner.get(r);
    if (!outer.has(r)) {
      const name = `x${given.length}`;
      given.push(array(r));
      const isOne = sizes[r] === 1 && n !== 1;
      if (isOne) before.push(`const s${name} = ${name}[0];`);
      outer.set(r, isOne ? `s${name}` : `${name}[i]`);
    }
    return outer.get(r);
  };
  group.forEach(([operation, results, operands, params], k) => {
    const names = operands.map(nameOf);
    const text = expressionOf(operation, params).replace(/\b[abc]\b/g, (c) => names["abc".indexOf(c)]);
    lines.push(`const y${k} = ${text};`);
    const r = root(results[0]);
    inner.set(r, `y${k}`);
    if (wanted.has(r) || (uses.get(r) ?? 0) > (readHere.get(r) ?? 0)) {
      lines.push(`x${given.length}[i] = y${k};`);
      given.push(array(r));
    }
  });
  const helpers = Object.keys(HELPERS);
  const make = new Function(
    ...helpers,
    ...given.map((_, i) => `x${i}`),
    `return () => { ${before.join(" ")} for (let i = 0; i < ${n}; i++) { ${lines.join(" ")} } };`,
  );
  return make(...Object.values(HELPERS), ...given);
}

function compileStep([operation, results, operands, params], context) {
  const { array, shapes } = context;
  const out = array(results[0]);
  const ins = operands.map(array);
  const shapesIn = operands.map((v) => shapes[v]);
  switch (operation) {
    case "view":
      return view(out, ins[0], shapes[results[0]], params.strides, params.offset);
    case "place":
      return place(out, ins[0], ins[1], shapesIn[0], params.strides, params.offset);
    case "concat":
      return concat(out, ins, params.sizes);
    case "reduce":
      return reduce(out, ins[0], params);
    case "cumulate":
      return cumulate(out, ins[0], params);
    case "dot":
      return dot(out, ins[0], ins[1], params);
    case "conv":
      return conv(out, ins[0], ins[1], params);
    case "gather":
      return gather(out, ins[0], ins[1], shapes[results[0]], shapesIn[0], shapesIn[1], params);
    case "scatter":
      return scatter(out, ...ins, ...shapesIn, params);
    case "dynamic_slice":
      return dynamicSlice(out, ins, shapes[results[0]], shapesIn[0]);
    case "dynamic_update_slice":
      return dynamicUpdate(out, ins, shapesIn[0], shapesIn[1]);
    case "scan":
      return scan(results, operands, params, context);
    default:
      throw new Error(`unknown operation ${operation}`);
  }
}

/** Calls f(position, offset) for each place of a shape, the last axis fastest. */
function walk(shape, steps, start, f) {
  const index = shape.map(() => 0);
  const n = product(shape);
  let at = start;
  for (let i = 0; i < n; i++) {
    f(i, at);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += steps[axis];
      if (++index[axis] < shape[axis]) break;
      at -= steps[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

const SMALL_TABLE = 1 << 20;

function tableOf(shape, steps, start) {
  const table = new Int32Array(product(shape));
  walk(shape, steps, start, (i, at) => (table[i] = at));
  return table;
}

function view(out, x, shape, steps, offset) {
  if (out.length > SMALL_TABLE) return () => walk(shape, steps, offset, (i, at) => (out[i] = x[at]));
  let table = null;
  return () => {
    table ??= tableOf(shape, steps, offset);
    for (let i = 0; i < out.length; i++) out[i] = x[table[i]];
  };
}

function place(out, x, fill, shape, steps, offset) {
  let table = null;
  return () => {
    table ??= tableOf(shape, steps, offset);
    out.fill(fill[0]);
    for (let i = 0; i < x.length; i++) out[table[i]] = x[i];
  };
}

function concat(out, ins, sizes) {
  const width = sizes.reduce((a, b) => a + b, 0);
  const rows = width ? out.length / width : 0;
  return () => {
    let at = 0;
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < ins.length; k++) {
        const [x, n] = [ins[k], sizes[k]];
        for (let i = 0, from = row * n; i < n; i++) out[at++] = x[from++];
      }
    }
  };
}

function reduce(out, x, { kind, size }) {
  const kinds = {
    sum(start) {
      let total = 0;
      for (let i = start; i < start + size; i++) total += x[i];
      return total;
    },
    prod(start) {
      let total = 1;
      for (let i = start; i < start + size; i++) total *= x[i];
      return total;
    },
    max(start) {
      let most = -Infinity;
      for (let i = start; i < start + size; i++) if (x[i] > most || x[i] !== x[i]) most = x[i];
      return most;
    },
    min(start) {
      let least = Infinity;
      for (let i = start; i < start + size; i++) if (x[i] < least || x[i] !== x[i]) least = x[i];
      return least;
    },
    argmax(start) {
      let best = start;
      for (let i = start; i < start + size; i++) if (x[i] > x[best]) best = i;
      return best - start;
    },
    argmin(start) {
      let best = start;
      for (let i = start; i < start + size; i++) if (x[i] < x[best]) best = i;
      return best - start;
    },
  };
  const f = kinds[kind];
  return () => {
    for (let j = 0, start = 0; j < out.length; j++, start += size) out[j] = f(start);
  };
}

function cumulate(out, x, { kind, size, inner, reverse }) {
  const join = { sum: (a, b) => a + b, prod: (a, b) => a * b, max: Math.max, min: Math.min }[kind];
  return () => {
    for (let block = 0; block < out.length; block += size * inner) {
      for (let c = 0; c < inner; c++) {
        let last = 0;
        for (let k = 0; k < size; k++) {
          const at = block + (reverse ? size - 1 - k : k) * inner + c;
          last = out[at] = k ? join(last, x[at]) : x[at];
        }
      }
    }
  };
}

/**
 * Adds `count` rows of a matrix, each times a number, to n numbers of `out`. Four rows at
 * once, since loads and stores take most of the time; zeros, as after ReLU, cost nothing.
 */
function addRows(out, to, n, x, from, count, matrix, start, stride) {
  let k = 0;
  for (; k + 3 < count; k += 4) {
    const a = x[from + k];
    const b = x[from + k + 1];
    const c = x[from + k + 2];
    const d = x[from + k + 3];
    if (a === 0 && b === 0 && c === 0 && d === 0) continue;
    const p = start + k * stride;
    const q = p + stride;
    const r = q + stride;
    const s = r + stride;
    for (let o = 0; o < n; o++) out[to + o] += a * matrix[p + o] + b * matrix[q + o] + c * matrix[r + o] + d * matrix[s + o];
  }
  for (; k < count; k++) {
    const a = x[from + k];
    if (a === 0) continue;
    const p = start + k * stride;
    for (let o = 0; o < n; o++) out[to + o] += a * matrix[p + o];
  }
}

/** (batch, rows, sum) times (batch, sum, columns). */
function dot(out, a, b, { batch, rows, sum, columns }) {
  return () => {
    out.fill(0);
    for (let g = 0; g < batch; g++) {
      for (let r = 0; r < rows; r++) {
        const row = g * rows + r;
        addRows(out, row * columns, columns, a, row * sum, sum, b, g * sum * columns, columns);
      }
    }
  };
}

/** Images (B, H, W, I), a kernel (kh, kw, I / groups, O); transposed ones by `spread`. */
function conv(out, x, kernel, params) {
  const { batch, strides: step, pads, dilation, spread, groups } = params;
  const [height, width, channels] = params.size;
  const [kh, kw, inputs, outputs] = params.kernel;
  const [rows, columns] = params.result;
  const own = outputs / groups;
  // For each row of the output, the pairs of a kernel's row and an input's row.
  const pairs = (count, size, taps, axis) =>
    Array.from({ length: count }, (_, y) => {
      const found = [];
      for (let k = 0; k < taps; k++) {
        const at = y * step[axis] - pads[axis] + k * dilation[axis];
        if (at >= 0 && at % spread[axis] === 0 && at / spread[axis] < size) found.push(k, at / spread[axis]);
      }
      return found;
    });
  const down = pairs(rows, height, kh, 0);
  const right = pairs(columns, width, kw, 1);
  return () => {
    out.fill(0);
    for (let image = 0; image < batch; image++) {
      for (let y = 0; y < rows; y++) {
        const vertical = down[y];
        for (let c = 0; c < columns; c++) {
          const horizontal = right[c];
          const to = ((image * rows + y) * columns + c) * outputs;
          for (let p = 0; p < vertical.length; p += 2) {
            for (let q = 0; q < horizontal.length; q += 2) {
              const from = ((image * height + vertical[p + 1]) * width + horizontal[q + 1]) * channels;
              const taps = (vertical[p] * kw + horizontal[q]) * inputs * outputs;
              for (let g = 0; g < groups; g++) {
                const first = from + g * inputs;
                if (own > 1) {
                  addRows(out, to + g * own, own, x, first, inputs, kernel, taps + g * own, outputs);
                  continue;
                }
                let total = 0;
                for (let i = 0; i < inputs; i++) total += x[first + i] * kernel[taps + i * outputs + g];
                out[to + g] += total;
              }
            }
          }
        }
      }
    }
  };
}

const clampStart = (start, size, whole) => Math.min(Math.max(start, 0), whole - size);

/** XLA's gather; starts beyond the ends are moved inside. */
function gather(out, x, index, shape, whole, indexShape, params) {
  const { offset, collapsed, map, batch, index_batch: indexBatch, sizes } = params;
  const own = strides(whole);
  const outer = shape.map((_, i) => i).filter((i) => !offset.includes(i));
  const inside = whole.map((_, i) => i).filter((i) => !collapsed.includes(i) && !batch.includes(i));
  const places = strides(indexShape.slice(0, -1)); // of the axes of index but the last
  const width = map.length;
  const isBatch = batch.map((axis, k) => [own[axis], indexBatch[k]]);
  const all = strides(shape);
  return () => {
    for (let i = 0; i < out.length; i++) {
      const at = shape.map((n, axis) => Math.floor(i / all[axis]) % n);
      const g = outer.map((axis) => at[axis]);
      const row = g.reduce((total, v, k) => total + v * places[k], 0) * width;
      let from = 0;
      for (let k = 0; k < width; k++) {
        from += clampStart(index[row + k], sizes[map[k]], whole[map[k]]) * own[map[k]];
      }
      for (const [stride, axis] of isBatch) from += g[axis] * stride;
      for (let k = 0; k < inside.length; k++) from += at[offset[k]] * own[inside[k]];
      out[i] = x[from];
    }
  };
}

/** XLA's scatter; what lies beyond the ends is left out. */
function scatter(out, x, index, updates, whole, indexShape, shape, params) {
  const { window, inserted, map, batch, index_batch: indexBatch, add } = params;
  const own = strides(whole);
  const all = strides(shape);
  const outer = shape.map((_, i) => i).filter((i) => !window.includes(i));
  const inside = whole.map((_, i) => i).filter((i) => !inserted.includes(i) && !batch.includes(i));
  const places = strides(indexShape.slice(0, -1));
  const width = map.length;
  return () => {
    out.set(x);
    for (let i = 0; i < updates.length; i++) {
      const at = shape.map((n, axis) => Math.floor(i / all[axis]) % n);
      const g = outer.map((axis) => at[axis]);
      const row = g.reduce((total, v, k) => total + v * places[k], 0) * width;
      const place = whole.map(() => 0);
      for (let k = 0; k < width; k++) place[map[k]] += index[row + k];
      batch.forEach((axis, k) => (place[axis] += g[indexBatch[k]]));
      inside.forEach((axis, k) => (place[axis] += at[window[k]]));
      if (place.some((v, axis) => v < 0 || v >= whole[axis])) continue;
      const to = place.reduce((total, v, axis) => total + v * own[axis], 0);
      out[to] = add ? out[to] + updates[i] : updates[i];
    }
  };
}

function dynamicSlice(out, ins, shape, whole) {
  const own = strides(whole);
  return () => {
    const start = shape.reduce((at, n, axis) => at + clampStart(ins[axis + 1][0], n, whole[axis]) * own[axis], 0);
    walk(shape, own, start, (i, at) => (out[i] = ins[0][at]));
  };
}

function dynamicUpdate(out, ins, whole, shape) {
  const own = strides(whole);
  return () => {
    out.set(ins[0]);
    const start = shape.reduce((at, n, axis) => at + clampStart(ins[axis + 2][0], n, whole[axis]) * own[axis], 0);
    walk(shape, own, start, (i, at) => (out[at] = ins[1][i]));
  };
}

/** Constants and carried values are copied into the body's own arrays. */
function scan(results, operands, params, context) {
  const { constants, carry, length, reverse } = params;
  const { array, root } = context;
  const ins = operands.map(array);
  const outs = results.map(array);
  const own = params.operands.map(array);
  const given = params.results.map(array);
  const body = compileSteps(params.steps, context, new Set(params.results.map(root)));
  const held = given.slice(0, carry).map((a) => new Float32Array(a.length));
  return () => {
    for (let k = 0; k < constants + carry; k++) own[k].set(ins[k]);
    for (let step = 0; step < length; step++) {
      const i = reverse ? length - 1 - step : step;
      for (let k = constants + carry; k < own.length; k++) {
        own[k].set(ins[k].subarray(i * own[k].length, (i + 1) * own[k].length));
      }
      for (const f of body) f();
      for (let k = 0; k < carry; k++) held[k].set(given[k]);
      for (let k = 0; k < carry; k++) own[constants + k].set(held[k]);
      for (let k = carry; k < given.length; k++) outs[k].set(given[k], i * given[k].length);
    }
    for (let k = 0; k < carry; k++) outs[k].set(own[constants + k]);
  };
}
