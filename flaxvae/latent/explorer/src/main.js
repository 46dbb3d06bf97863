// The page: state, pointer, keys, panels. The same script is the worker's.

import { compile, decodeBytes, decodeHalves } from "./engine.js";
import { Runner, normals, serve } from "./decoder.js";
import { drawBars, drawImage, drawSeries, formatNumber } from "./pictures.js";
import { Scatter } from "./scatter.js";

const MOST_SLIDERS = 64; // at first; a button shows more
const SECONDS = 4; // of a path, from one end to the other
const QUIET = 700; // milliseconds without a change, before a screen reader is told
const SQUARE = 7; // pictures along a side of the bilinear square

const $ = (id) => document.getElementById(id);

function start() {
  const opened = performance.now();
  const data = JSON.parse($("data").textContent);
  const D = data.levels.reduce((a, b) => a + b, 0);
  const top = data.levels[0];
  const N = data.count;
  const halves = (text, count) => decodeHalves(decodeBytes(text), 0, count);
  const codes = halves(data.codes, N * D);
  const std = data.std ? halves(data.std, N * D) : null;
  const draws = data.prior?.draws ? halves(data.prior.draws, decodeBytes(data.prior.draws).length / 2) : null;
  const isImage = data.shape.length === 3;
  const isSeries = data.shape.length === 2;
  const isConditional = Boolean(data.condition);
  const vectors = data.condition?.vectors ? halves(data.condition.vectors, N * data.condition.width) : null;
  const rows = data.examples.rows ? halves(data.examples.rows, data.examples.count * data.shape.reduce((a, b) => a * b)) : null;
  for (const column of data.columns ?? []) {
    if (column.examples) column.examples = new Float32Array(decodeBytes(column.examples).slice().buffer);
  }
  const hasLevels = data.levels.length > 1;
  const code = $("code").textContent;
  const isRandom = Boolean(data.std || data.encoder?.noise.length); // q(z|x) has draws here
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const decoder = new Runner(data.decoder, url);
  let encoder = null;
  const sheet = data.examples.sheet ? new Image() : null;

  const state = {
    z: Float32Array.from(data.mean),
    example: -1,
    condition: 0,
    kept: data.levels.length,
    temperature: 1,
    seed: 1,
    view: data.codebook ? "codebook" : D <= 2 || !data.pca ? "axes" : "pca",
    x: Math.min(...data.order[0].slice(0, 2)),
    y: Math.max(...data.order[0].slice(0, 2)),
    level: 0, // of the sliders
    count: MOST_SLIDERS, // of the sliders
    own: null, // an image of one's own and its code: { x, z }
    tool: "explore",
    marks: [], // of the path or square: { z, condition }
    playing: false,
    position: 0,
    preview: null, // the code under the pointer
    cell: -1, // of a grid of codebook entries, the one that is chosen
  };
  const latencies = [];
  const draw = normals((Date.now() ^ 0x5bd1e995) >>> 0);

  // ---- pictures ---------------------------------------------------------------------

  const mainCanvas = isImage || isSeries ? document.createElement("canvas") : null;
  const mainBox = $("main-box");
  if (mainCanvas) {
    mainCanvas.setAttribute("role", "img");
    mainCanvas.setAttribute("aria-label", "Decoded picture");
    mainCanvas.id = "picture";
    mainBox.append(mainCanvas);
    if (isImage && Math.max(...data.shape.slice(0, 2)) <= 96) document.body.classList.add("sharp");
  } else $("pair").hidden = true;
  document.body.classList.toggle("few", Boolean(mainCanvas) && D <= 3 && !hasLevels && !data.codebook);

  function fitPicture() {
    if (!mainCanvas) return;
    const scale = Math.min(mainBox.clientWidth / mainCanvas.width, mainBox.clientHeight / mainCanvas.height);
    mainCanvas.style.width = `${Math.floor(mainCanvas.width * scale)}px`;
    mainCanvas.style.height = `${Math.floor(mainCanvas.height * scale)}px`;
  }

  let original = null; // the example beside the bars of a table
  let marked = -1; // its number

  function show(x, canvas = mainCanvas) {
    if (isImage) drawImage(canvas, x, data.shape);
    else if (isSeries) drawSeries(canvas, x, data.shape, data.columns, canvas === mainCanvas);
    else drawBars(mainBox, x, data.columns, original, marked);
    if (canvas === mainCanvas && mainCanvas && mainCanvas.shown !== `${canvas.width}`) {
      mainCanvas.shown = `${canvas.width}`;
      fitPicture();
    }
    return true;
  }

  const conditionOf = (at) => (vectors ? vectors.subarray(Math.max(at.example ?? 0, 0) * data.condition.width).subarray(0, data.condition.width) : at.condition);

  const requestOf = (at) => ({
    inputs: {
      z: at.z,
      ...(isConditional ? { condition: conditionOf(at) } : {}),
      ...(hasLevels ? { kept: at.kept ?? state.kept, temperature: state.temperature } : {}),
    },
    seed: state.seed,
  });

  function decode(at, isOwn, since) {
    decoder.ask("main", requestOf(at), (x) => {
      show(x);
      if (isOwn) show(x, $("reconstruction"));
      page.pixels = x;
      page.pictures++;
      if (since) {
        latencies.push(performance.now() - since);
        if (latencies.length > 500) latencies.shift();
      }
    });
  }

  const rowOf = (i) => {
    const size = data.shape.reduce((a, b) => a * b);
    return rows.subarray(i * size, (i + 1) * size);
  };

  function showExample(i, canvas) {
    if (i >= data.examples.count) return false;
    if (rows) return show(rowOf(i), canvas);
    const [height, width] = data.shape;
    canvas.width = width;
    canvas.height = height;
    const across = data.examples.across;
    canvas.getContext("2d").drawImage(sheet, (i % across) * width, Math.floor(i / across) * height, width, height, 0, 0, width, height);
    return true;
  }

  const labelOf = (i) => (data.labels && data.labels[i] >= 0 ? data.classes[data.labels[i]] : null);

  function isCodeOf(at, i) {
    const isItsClass = !data.condition?.classes || at.condition === data.labels?.[i];
    if (!isItsClass || (at.kept ?? state.kept) !== data.levels.length) return false;
    for (let d = 0; d < D; d++) if (at.z[d] !== codes[i * D + d]) return false;
    return true;
  }

  /** The example, or the image of one's own, and its reconstruction. */
  function showPair(at, isShown) {
    const i = at.example ?? -1;
    const own = i < 0 && !state.preview ? state.own : null;
    const name = i >= 0 ? labelOf(i) : null;
    const caption = own ? "your image" : i < 0 ? "test example" : `#${data.numbers[i]}${name === null ? "" : ` · ${name}`}`;
    if (!mainCanvas) {
      original = i >= 0 && i < data.examples.count ? rowOf(i) : null;
      marked = i;
      $("main-caption").textContent = original ? `mean of p(x|z); marks: test example ${caption}` : "mean of p(x|z)";
      return;
    }
    const has = own ? show(own.x, $("original")) : i >= 0 && showExample(i, $("original"));
    $("original").style.visibility = has ? "visible" : "hidden";
    $("original-caption").textContent = caption;
    $("reconstruction").style.visibility = own || i >= 0 ? "visible" : "hidden";
    if (!(own || i >= 0) || isShown) return;
    const z = own ? own.z : codeOf(i);
    const condition = own ? state.condition : (data.labels?.[i] ?? 0);
    decoder.ask("pair", requestOf({ z, condition, example: i, kept: data.levels.length }), (x) => show(x, $("reconstruction")));
  }

  // ---- codes ------------------------------------------------------------------------

  const codeOf = (i) => codes.slice(i * D, (i + 1) * D);

  function current() {
    return state.preview ?? state;
  }

  function update({ keepPair = false, since = 0 } = {}) {
    const at = current();
    const own = at.example ?? -1;
    // The code of an example gives its reconstruction: one picture for both.
    const isOwn = Boolean(mainCanvas) && own >= 0 && !keepPair && isCodeOf(at, own);
    if (!keepPair) showPair(at, isOwn);
    decode(at, isOwn, since);
    showSliders();
    scatter.paint();
    showStatus();
  }

  function setCode(z, { example = -1, condition = null, own = null } = {}) {
    state.z.set(z);
    state.example = example;
    state.own = own;
    state.preview = null;
    if (condition !== null && data.condition?.classes && condition >= 0) {
      state.condition = condition;
      $("condition").value = condition;
    }
    if (example >= 0) $("example").value = data.numbers[example];
    $("to-posterior").disabled = !((std && example >= 0) || (isRandom && data.encoder && (own || example >= 0)));
    update();
  }

  function setExample(i) {
    if (hasLevels) setKept(data.levels.length);
    setCode(codeOf(i), { example: i, condition: data.labels?.[i] ?? null });
  }

  function setKept(kept) {
    state.kept = kept;
    $("levels").value = kept;
  }

  function drawPrior() {
    state.seed++;
    const z = Float32Array.from(state.z);
    if (data.prior === "normal") {
      for (let d = 0; d < top; d++) z[d] = state.temperature * draw();
    } else {
      const classes = draws.length / D / data.prior.count;
      const first = (classes > 1 ? state.condition : 0) * data.prior.count;
      const i = first + Math.floor(Math.random() * data.prior.count);
      z.set(draws.subarray(i * D, (i + 1) * D));
    }
    if (hasLevels) setKept(1);
    setCode(z);
  }

  function drawPosterior() {
    const { example: i, own } = state;
    if (std && i >= 0) {
      const z = codeOf(i);
      for (let d = 0; d < D; d++) z[d] += state.temperature * std[i * D + d] * draw();
      setCode(z, { example: i });
    } else if (own || i >= 0) {
      if (hasLevels) setKept(data.levels.length);
      const x = own ? own.x : rows ? rowOf(i) : pixelsOf($("original"));
      encode(x, state.temperature, (z) => setCode(z, { example: i, own }));
    }
  }

  // ---- the plane --------------------------------------------------------------------

  const scatter = new Scatter($("points"), $("overlay"), data.colors, data.no_class);
  scatter.labels = data.labels;
  const pca = data.pca;
  const arrangement = () => data.embeddings.find(({ name }) => name === state.view);

  function placeOf(z) {
    if (state.view === "axes") return [z[state.x], D > 1 ? z[state.y] : 0];
    if (state.view === "pca") {
      return [0, 1].map((k) => {
        let total = 0;
        for (let d = 0; d < top; d++) total += (z[d] - pca.mean[d]) * pca.directions[k * top + d];
        return total;
      });
    }
    return null;
  }

  /** The place of a code, or where codes have no place that of its example. */
  function placeFor(at) {
    const i = at.example ?? -1;
    if (i < 0 || placeOf(at.z)) return placeOf(at.z);
    const place = [scatter.xy[2 * i], scatter.xy[2 * i + 1]];
    return Number.isFinite(place[0]) ? place : null;
  }

  function placePoints() {
    const xy = new Float32Array(2 * N).fill(NaN);
    if (data.codebook) xy.set(data.codebook.xy);
    else if (arrangement()) {
      const { rows: chosen, xy: places } = arrangement();
      chosen.forEach((i, k) => xy.set([places[2 * k], places[2 * k + 1]], 2 * i));
    } else if (state.view === "pca") {
      for (let i = 0; i < N; i++) xy.set(placeOf(codes.subarray(i * D, (i + 1) * D)), 2 * i);
    } else {
      for (let i = 0; i < N; i++) {
        xy[2 * i] = codes[i * D + state.x];
        // Of one dimension the other axis spreads the points.
        xy[2 * i + 1] = D > 1 ? codes[i * D + state.y] : ((i * 0.618034) % 1) - 0.5;
      }
    }
    scatter.names = namesOfAxes();
    scatter.place(xy);
  }

  function namesOfAxes() {
    const name = (d) => `z${String(d + 1).replace(/\d/g, (c) => "₀₁₂₃₄₅₆₇₈₉"[c])}`;
    if (state.view === "axes") return D > 1 ? [name(state.x), name(state.y)] : [name(0), ""];
    return [1, 2].map((k) => `${arrangement()?.name ?? "PC"} ${k}`);
  }

  /** The code at a place of the plane; its other coordinates are those that are kept. */
  function codeAt(px, py) {
    const [x, y] = scatter.toData(px, py);
    const z = Float32Array.from(state.z);
    if (state.view === "axes") {
      z[state.x] = x;
      if (D > 1) z[state.y] = y;
      return z;
    }
    if (state.view === "pca") {
      const [px0, py0] = placeOf(z);
      for (let d = 0; d < top; d++) z[d] += (x - px0) * pca.directions[d] + (y - py0) * pca.directions[top + d];
      return z;
    }
    if (data.codebook) {
      const i = scatter.nearest(px, py, 1e3);
      return i >= 0 ? codeOf(i) : z;
    }
    const { rows: chosen, xy } = arrangement();
    const near = chosen
      .map((i, k) => [i, (xy[2 * k] - x) ** 2 + (xy[2 * k + 1] - y) ** 2])
      .sort((a, b) => a[1] - b[1])
      .slice(0, 3);
    const weights = near.map(([, d]) => 1 / (d + 1e-6));
    const total = weights.reduce((a, b) => a + b, 0);
    z.fill(0);
    near.forEach(([i], k) => {
      for (let d = 0; d < D; d++) z[d] += (weights[k] / total) * codes[i * D + d];
    });
    return z;
  }

  let lasso = [];

  scatter.paint = () => {
    const { ratio, width, height } = scatter;
    const context = $("overlay").getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink");
    const accent = style.getPropertyValue("--accent");
    const large = Math.max(1, Math.min(2.2, width / 1100));
    context.lineWidth = 2 * large;
    const ring = (place, radius, filled) => {
      if (!place) return;
      const [px, py] = scatter.toScreen(...place);
      context.beginPath();
      context.arc(px, py, radius * large, 0, 7);
      context.strokeStyle = ink;
      if (filled) {
        context.fillStyle = accent;
        context.fill();
      }
      context.stroke();
    };
    if (state.marks.length > 1) {
      const isSquare = state.marks.length === 4;
      const isCurve = state.tool === "path" && placeOf(state.z); // or a line between examples
      const line = isSquare ? [0, 1, 3, 2, 0].map((i) => state.marks[i]) : isCurve ? Array.from({ length: 41 }, (_, k) => pathAt(k / 40)) : state.marks;
      context.strokeStyle = accent;
      context.beginPath();
      for (const place of line.map(placeFor)) if (place) context.lineTo(...scatter.toScreen(...place));
      context.stroke();
    }
    for (const mark of state.marks) ring(placeFor(mark), 6, true);
    const place = state.playing && !placeOf(state.z) ? null : placeFor(current());
    if (place) {
      const [px, py] = scatter.toScreen(...place);
      context.strokeStyle = ink;
      context.beginPath();
      for (const [a, b] of [[5 * large, 13 * large], [-5 * large, -13 * large]]) {
        context.moveTo(px + a, py);
        context.lineTo(px + b, py);
        context.moveTo(px, py + a);
        context.lineTo(px, py + b);
      }
      context.stroke();
      ring(place, 5, false);
    }
    if (hovered >= 0) ring([scatter.xy[2 * hovered], scatter.xy[2 * hovered + 1]], 8, false);
    if (lasso.length > 1) {
      context.strokeStyle = accent;
      context.setLineDash([5, 4]);
      context.beginPath();
      for (const p of lasso) context.lineTo(...p);
      context.closePath();
      context.stroke();
      context.setLineDash([]);
    }
  };

  // ---- path and square --------------------------------------------------------------

  function pathAt(t) {
    const [a, b] = state.marks;
    const z = new Float32Array(D);
    let [p, q] = [1 - t, t];
    if ($("shape").value === "spherical") {
      const dot = (u, v) => u.reduce((total, value, d) => total + value * v[d], 0);
      const size = Math.sqrt(dot(a.z, a.z) * dot(b.z, b.z));
      const angle = Math.acos(Math.max(-1, Math.min(1, dot(a.z, b.z) / (size || 1))));
      if (angle > 1e-4 && Math.PI - angle > 1e-4) {
        [p, q] = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
      }
    }
    for (let d = 0; d < D; d++) z[d] = p * a.z[d] + q * b.z[d];
    return { z, condition: state.condition, example: vectors ? state.example : -1 };
  }

  function moveOnPath(t) {
    state.position = t;
    $("position").value = t;
    state.preview = pathAt(t);
    update({ keepPair: true });
  }

  let last = 0;
  let phase = 0;

  function tick(now) {
    if (!state.playing) return;
    phase = (phase + Math.min(now - last, 100) / 1000 / SECONDS) % 2;
    last = now;
    moveOnPath(phase < 1 ? phase : 2 - phase);
    requestAnimationFrame(tick);
  }

  function play(on) {
    state.playing = on && state.marks.length === 2;
    $("play").setAttribute("aria-pressed", state.playing);
    $("play").textContent = state.playing ? "⏸ Pause" : "▶ Play";
    if (state.playing) {
      last = performance.now();
      requestAnimationFrame(tick);
    }
  }

  function mark(at) {
    const most = state.tool === "square" ? 4 : 2;
    if (state.marks.length >= most) clearMarks();
    state.marks.push(at);
    const isPath = state.tool === "path" && state.marks.length === 2;
    $("play").disabled = $("position").disabled = !isPath;
    if (isPath) {
      phase = 0;
      play(true);
    } else if (state.marks.length === 4) drawSquare();
    else update();
    showStatus();
  }

  function clearMarks() {
    play(false);
    state.marks = [];
    state.preview = null;
    $("play").disabled = $("position").disabled = true;
    $("main-caption").textContent = "mean of p(x|z)";
    $("main-figure").classList.remove("square");
  }

  function drawSquare() {
    const tile = document.createElement("canvas");
    const large = document.createElement("canvas");
    let left = SQUARE * SQUARE;
    for (let i = 0; i < SQUARE; i++) {
      for (let j = 0; j < SQUARE; j++) {
        const at = { z: bilinear(i / (SQUARE - 1), j / (SQUARE - 1)), condition: state.condition, example: vectors ? state.example : -1 };
        decoder.ask(`tile ${i} ${j}`, requestOf(at), (x) => {
          show(x, tile);
          const { width, height } = tile;
          if (left === SQUARE * SQUARE) Object.assign(large, { width: SQUARE * (width + 1) - 1, height: SQUARE * (height + 1) - 1 });
          large.getContext("2d").drawImage(tile, j * (width + 1), i * (height + 1));
          if (--left) return;
          mainCanvas.width = large.width;
          mainCanvas.height = large.height;
          mainCanvas.getContext("2d").drawImage(large, 0, 0);
          mainCanvas.shown = "";
          fitPicture();
          page.pictures++;
          $("main-caption").textContent = "bilinear square of four codes";
        });
      }
    }
    scatter.paint();
  }

  /** Rows go from the first two marks to the last two. */
  function bilinear(s, t) {
    const [a, b, c, d] = state.marks.map((m) => m.z);
    return a.map((_, i) => (1 - s) * ((1 - t) * a[i] + t * b[i]) + s * ((1 - t) * c[i] + t * d[i]));
  }

  // ---- pointer ----------------------------------------------------------------------

  const overlay = $("overlay");
  const fingers = new Map();
  let [hovered, drag, pinch] = [-1, null, 0];

  const placeOn = (event) => {
    const box = overlay.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function look(px, py, since) {
    const i = scatter.nearest(px, py);
    const isNew = i !== hovered;
    hovered = i;
    if (!state.playing && !(state.marks.length === 4)) {
      const z = i >= 0 ? codeOf(i) : codeAt(px, py);
      const label = i >= 0 && data.condition?.classes ? (data.labels?.[i] ?? state.condition) : state.condition;
      state.preview = { z, example: i >= 0 ? i : -1, condition: label, kept: i >= 0 ? data.levels.length : state.kept };
      if (i < 0) state.preview.example = vectors ? state.example : -1;
      update({ keepPair: i < 0 || !isNew, since });
    }
    showCard(i, px, py);
    scatter.paint();
  }

  function showCard(i, px, py) {
    const card = $("card");
    card.hidden = i < 0;
    if (i < 0) return;
    const has = isImage && showExample(i, $("card-image"));
    $("card-image").hidden = !has;
    const name = labelOf(i);
    $("card-text").textContent = `example ${data.numbers[i]}${name === null ? "" : ` · ${name}`}`;
    const [w, h] = [card.offsetWidth, card.offsetHeight];
    card.style.left = `${px + 18 + w > scatter.width ? px - 18 - w : px + 18}px`;
    card.style.top = `${Math.max(4, Math.min(scatter.height - h - 4, py - h / 2))}px`;
  }

  function leave() {
    hovered = -1;
    $("card").hidden = true;
    if (state.playing || state.marks.length === 4 || !state.preview) return;
    state.preview = null;
    update();
  }

  overlay.addEventListener("pointerdown", (event) => {
    overlay.setPointerCapture(event.pointerId);
    const place = placeOn(event);
    fingers.set(event.pointerId, place);
    drag = { from: place, last: place, moved: false, pinched: Boolean(drag) };
    if (state.tool === "lasso") lasso = [place];
    if (event.pointerType !== "mouse" && fingers.size === 1 && state.tool === "explore") look(...place, event.timeStamp);
  });

  overlay.addEventListener("pointermove", (event) => {
    const place = placeOn(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, place);
    if (fingers.size === 2) {
      const [[ax, ay], [bx, by]] = [...fingers.values()];
      const wide = Math.hypot(ax - bx, ay - by);
      const middle = [(ax + bx) / 2, (ay + by) / 2];
      if (pinch) {
        scatter.zoom(wide / pinch.wide, ...middle);
        scatter.pan(middle[0] - pinch.middle[0], middle[1] - pinch.middle[1]);
      }
      pinch = { wide, middle };
      return;
    }
    if (drag && Math.hypot(place[0] - drag.from[0], place[1] - drag.from[1]) > 4) drag.moved = true;
    if (drag && drag.moved && state.tool === "lasso") {
      lasso.push(place);
      scatter.paint();
      return;
    }
    if (drag && drag.moved && event.pointerType === "mouse") {
      scatter.pan(place[0] - drag.last[0], place[1] - drag.last[1]);
      drag.last = place;
      return;
    }
    if (state.tool !== "lasso" || !drag) look(...place, event.timeStamp);
  });

  const lift = (event) => {
    const place = placeOn(event);
    fingers.delete(event.pointerId);
    const was = drag;
    pinch = 0;
    if (!fingers.size) drag = null;
    if (!was || event.type === "pointercancel") return;
    if (state.tool === "lasso") {
      finishLasso(was.moved);
      return;
    }
    const isTouch = event.pointerType !== "mouse";
    if ((was.moved && !isTouch) || fingers.size || was.pinched) return;
    const i = scatter.nearest(...place);
    const at = { z: i >= 0 ? codeOf(i) : codeAt(...place), example: i, condition: state.condition };
    if (state.tool !== "explore") mark(at);
    else if (i >= 0) setExample(i);
    else setCode(at.z);
    if (isTouch) $("card").hidden = true;
  };
  overlay.addEventListener("pointerup", lift);
  overlay.addEventListener("pointercancel", lift);
  overlay.addEventListener("pointerleave", leave);
  overlay.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      scatter.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...placeOn(event));
    },
    { passive: false },
  );

  function finishLasso(hasMoved) {
    const found = hasMoved ? scatter.inside(lasso) : [];
    lasso = [];
    scatter.selected = found.length ? new Set(found) : null;
    if (found.length && data.codebook) setExample(found[0]);
    else if (found.length) {
      const z = new Float32Array(D);
      for (const i of found) for (let d = 0; d < D; d++) z[d] += codes[i * D + d] / found.length;
      setCode(z);
      $("main-caption").textContent = "mean code of the selection";
    } else $("main-caption").textContent = "mean of p(x|z)";
    scatter.draw();
    showStatus();
  }

  // ---- controls ---------------------------------------------------------------------

  const cells = [];
  let entry = null;

  function changeCell(k, value) {
    play(false);
    if (state.preview) state.z.set(state.preview.z);
    state.preview = null;
    state.z[k] = Math.max(0, Math.min(data.codebook.size - 1, value));
    state.example = -1;
    update({ keepPair: true });
  }

  /** A grid of entries: a click chooses a place, a click with Shift swaps two. */
  function makeCells() {
    const grid = document.createElement("div");
    grid.className = "cells";
    grid.style.gridTemplateColumns = `repeat(${data.codebook.across}, 1fr)`;
    for (let k = 0; k < D; k++) {
      const button = grid.appendChild(document.createElement("button"));
      button.addEventListener("click", (event) => {
        const other = state.cell;
        if (event.shiftKey && other >= 0) {
          const { z } = current();
          const [a, b] = [z[k], z[other]];
          changeCell(k, b);
          changeCell(other, a);
        } else state.cell = k;
        showSliders();
        entry.disabled = false;
      });
      cells.push(button);
    }
    const label = document.createElement("label");
    label.className = "wide";
    label.innerHTML = `Entry <input type="range" min="0" max="${data.codebook.size - 1}" step="1" disabled><output>–</output>`;
    entry = label.children[0];
    entry.addEventListener("input", () => changeCell(state.cell, Number(entry.value)));
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = `Numbers of the codebook's ${data.codebook.size} entries. Click a place, then choose its entry; Shift and a click swaps two places.`;
    $("sliders").append(label, grid, note);
    for (const id of ["path", "to-posterior", "to-prior"]) $(id).hidden = true;
    $("temperature").parentElement.hidden = true;
    $("to-mean").textContent = "Usual";
    $("to-mean").title = "The most frequent entry of each place (M)";
    for (const tool of ["path", "square"]) document.querySelector(`[data-tool=${tool}]`).hidden = true;
  }
  if (data.codebook) makeCells();

  let sliders = [];
  const ends = data.levels.map((_, k) => data.levels.slice(0, k).reduce((x, y) => x + y, 0)); // before each level
  const nameOf = (d) => {
    const k = ends.findLastIndex((end) => end <= d);
    return hasLevels ? `${k + 1},${d - ends[k] + 1}` : `${d + 1}`;
  };

  function makeSlider(d) {
    const row = document.createElement("label");
    row.className = "slider";
    const low = Math.min(-3, data.mean[d] - 4 * data.spread[d]);
    const high = Math.max(3, data.mean[d] + 4 * data.spread[d]);
    row.innerHTML = `<b>z<sub>${nameOf(d)}</sub></b><input type="range" step="any"><output></output><span class="kl"></span>`;
    const [, input, output, kl] = row.children;
    input.min = low.toPrecision(4);
    input.max = high.toPrecision(4);
    input.setAttribute("aria-label", `z ${nameOf(d)}`);
    input.dataset.dimension = d;
    kl.textContent = data.kl ? `${data.kl[d].toFixed(2)} nats` : "";
    input.addEventListener("input", () => {
      play(false);
      if (state.preview) state.z.set(state.preview.z);
      state.preview = state.own = null;
      state.z[d] = Number(input.value);
      state.example = vectors ? state.example : -1;
      if (state.kept <= state.level) setKept(state.level + 1); // a level that is drawn has no sliders
      update({ keepPair: true });
    });
    $("sliders").append(row);
    return { d, input, output };
  }

  /** The sliders of one level, largest KL first, and what they are. */
  function makeSliders() {
    const order = data.order[state.level];
    for (const element of [...$("sliders").children]) if (element.id !== "level-label") element.remove();
    sliders = order.slice(0, state.count).map(makeSlider);
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = `${sliders.length < order.length ? `${sliders.length} of ${order.length} dimensions` : "Dimensions"} by ${data.kl ? "their KL" : "the spread of their codes"}, largest first. `;
    if (hasLevels) note.textContent += "“Levels” says which levels are those of the code; the others are drawn from the prior given those above, at temperature 0 its mean.";
    if (order.length > 2) $("sliders").append(note);
    if (sliders.length === order.length) return;
    const more = Object.assign(document.createElement("button"), { textContent: `Show ${Math.min(MOST_SLIDERS, order.length - sliders.length)} more` });
    more.addEventListener("click", () => {
      state.count += MOST_SLIDERS;
      makeSliders();
      showSliders();
    });
    $("sliders").append(more);
  }

  if (hasLevels) {
    const label = Object.assign(document.createElement("label"), { className: "wide", id: "level-label", textContent: "Sliders: level " });
    const select = label.appendChild(document.createElement("select"));
    data.levels.forEach((size, k) => {
      const kl = data.kl ? `, ${data.order[k].reduce((total, d) => total + data.kl[d], 0).toFixed(1)} nats` : "";
      select.add(new Option(`${k + 1}${k ? "" : " (top)"}: ${size}${kl}`, k));
    });
    select.addEventListener("change", () => {
      Object.assign(state, { level: Number(select.value), count: MOST_SLIDERS });
      makeSliders();
      showSliders();
    });
    $("sliders").append(label);
  }
  if (!data.codebook) makeSliders();

  function showSliders() {
    const { z } = current();
    cells.forEach((button, k) => {
      button.textContent = z[k];
      button.style.setProperty("--hue", `${(z[k] * 137.508) % 360}deg`);
      button.setAttribute("aria-pressed", k === state.cell);
      button.setAttribute("aria-label", `place ${k + 1}: entry ${z[k]}`);
    });
    if (entry && state.cell >= 0) {
      entry.value = z[state.cell];
      entry.nextElementSibling.textContent = z[state.cell];
    }
    for (const { d, input, output } of sliders) {
      input.value = z[d];
      output.textContent = z[d].toFixed(2);
    }
  }

  let speaking = 0;

  function showStatus() {
    const at = current();
    let text = data.codebook ? `${D} of ${data.codebook.size} entries` : D <= 8 ? `z = (${Array.from(at.z, (v) => v.toFixed(2)).join(", ")})` : `|z| = ${Math.hypot(...at.z).toFixed(2)}`;
    if (at.example >= 0 && !vectors) text += ` · example ${data.numbers[at.example]}`;
    if (scatter.selected) text = `${scatter.selected.size.toLocaleString("en")} codes selected (Esc: none) · ${text}`;
    if (state.tool === "path" && state.marks.length < 2) text = `Path: click ${state.marks.length ? "the second point" : "two points"} · ${text}`;
    if (state.tool === "square" && state.marks.length < 4) text = `Square: click ${4 - state.marks.length} more points · ${text}`;
    if ($("status").textContent === text) return;
    $("status").textContent = text;
    // A screen reader hears where the code has come to rest.
    clearTimeout(speaking);
    speaking = setTimeout(() => ($("spoken").textContent = text), QUIET);
  }

  for (const name of ["x", "y"]) {
    const select = $(`axis-${name}`);
    for (const d of data.order[0]) select.add(new Option(`z${d + 1}`, d));
    select.value = state[name];
    select.addEventListener("change", () => {
      state[name] = Number(select.value);
      placePoints();
      update();
    });
  }
  const views = data.codebook ? [["codebook", "PCA"]] : [["axes", "two dimensions"], ...(pca ? [["pca", "PCA"]] : []), ...data.embeddings.map(({ name }) => [name, name])];
  for (const [value, text] of views) $("view").add(new Option(text, value));
  $("view").value = state.view;
  $("view-label").hidden = views.length < 2;
  const showAxes = () => {
    for (const label of document.querySelectorAll(".axis")) label.hidden = state.view !== "axes" || top < 3;
  };
  $("view").addEventListener("change", () => {
    state.view = $("view").value;
    showAxes();
    placePoints();
    update();
  });
  showAxes();

  const setTool = (tool) => {
    state.tool = tool;
    for (const button of $("tools").children) button.setAttribute("aria-pressed", button.dataset.tool === tool);
    clearMarks();
    update();
  };
  for (const button of $("tools").children) button.addEventListener("click", () => setTool(button.dataset.tool));
  $("fit").addEventListener("click", () => scatter.fit());
  $("play").addEventListener("click", () => play(!state.playing));
  $("position").addEventListener("input", () => {
    play(false);
    phase = Number($("position").value);
    moveOnPath(phase);
  });
  $("shape").addEventListener("change", () => scatter.paint());

  const act = (id, run) =>
    $(id).addEventListener("click", () => {
      clearMarks();
      run();
    });
  act("to-mean", () => setCode(data.mean));
  act("to-prior", drawPrior);
  act("to-example", () => setExample(Math.floor(Math.random() * N)));
  act("to-posterior", drawPosterior);
  $("to-prior").hidden ||= !data.prior;
  $("to-posterior").disabled = true;
  $("to-posterior").hidden ||= !isRandom && (Boolean(data.encoder) || !data.prior);
  if (!isRandom && !data.encoder) $("to-posterior").title = "Draws of this posterior need the encoder: explore --with_encoder";
  $("temperature").parentElement.hidden ||= !data.prior && !isRandom;
  document.querySelector("[data-tool=square]").hidden ||= !mainCanvas;
  $("example").max = data.numbers[N - 1];
  $("example").addEventListener("change", () => {
    const wanted = Number($("example").value);
    let best = 0;
    data.numbers.forEach((n, i) => {
      if (Math.abs(n - wanted) < Math.abs(data.numbers[best] - wanted)) best = i;
    });
    clearMarks();
    setExample(best);
  });
  $("temperature").addEventListener("input", () => {
    state.temperature = Number($("temperature").value);
    $("temperature-out").textContent = state.temperature.toFixed(2);
    if (hasLevels) update({ keepPair: true });
  });

  if (data.condition?.classes) {
    $("condition-label").hidden = false;
    for (let c = 0; c < data.condition.classes; c++) $("condition").add(new Option(data.classes[c] ?? c, c));
    $("condition").addEventListener("change", () => {
      state.condition = Number($("condition").value);
      if (state.preview) state.preview.condition = state.condition;
      update({ keepPair: true });
    });
  }
  if (hasLevels) {
    $("levels-label").hidden = false;
    const L = data.levels.length;
    for (let k = 1; k <= L; k++) {
      $("levels").add(new Option(k === L ? `all ${L} from the code` : `${k} from the code, ${L - k} from the prior`, k));
    }
    $("levels").value = L;
    $("levels").addEventListener("change", () => {
      state.kept = Number($("levels").value);
      update({ keepPair: true });
    });
  }

  data.classes.forEach((name, label) => {
    if (!data.labels) return;
    const button = document.createElement("button");
    button.setAttribute("aria-pressed", "true");
    button.title = `Show or hide ${name}`;
    button.style.setProperty("--own", data.colors[label]);
    button.append(document.createElement("i"), Object.assign(document.createElement("span"), { textContent: name }));
    button.addEventListener("click", () => {
      const isShown = scatter.hidden.delete(label);
      if (!isShown) scatter.hidden.add(label);
      button.setAttribute("aria-pressed", isShown);
      scatter.draw();
    });
    $("legend").append(button);
  });

  // ---- images of one's own ----------------------------------------------------------

  async function encodeFile(file) {
    const [height, width] = data.shape;
    const picture = await createImageBitmap(file);
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    const side = Math.min(picture.width / width, picture.height / height);
    const [w, h] = [width * side, height * side];
    context.drawImage(picture, (picture.width - w) / 2, (picture.height - h) / 2, w, h, 0, 0, width, height);
    encodeOwn(pixelsOf(canvas));
  }

  /** What the model sees of a canvas of the data's size. */
  function pixelsOf(canvas) {
    const [height, width, channels] = data.shape;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const x = new Float32Array(width * height * channels);
    for (let i = 0; i < width * height; i++) {
      const [r, g, b] = [0, 1, 2].map((k) => pixels[4 * i + k] / 255);
      if (channels === 1) x[i] = 0.299 * r + 0.587 * g + 0.114 * b;
      else x.set([r, g, b], 3 * i);
    }
    return x;
  }

  function encodeOwn(x) {
    clearMarks();
    if (hasLevels) setKept(data.levels.length);
    encode(x, 0, (z) => setCode(z, { own: { x, z } }));
  }

  /** A draw from q(z|x) with deviations times `noise`; 0: its mean. */
  function encode(x, noise, done) {
    encoder ??= new Runner(data.encoder, url);
    const inputs = { x, ...(isConditional ? { condition: conditionOf(state) } : {}) };
    encoder.ask("main", { inputs, seed: ++state.seed, noise }, done);
  }

  if (data.encoder && isImage) {
    $("open").hidden = false;
    $("open").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", () => $("file").files[0] && encodeFile($("file").files[0]));
    addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
    addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      const file = event.dataTransfer.files[0];
      if (file) encodeFile(file);
    });
  }

  // ---- header -----------------------------------------------------------------------

  const codeText = () => Array.from(current().z, (v) => Number(v.toFixed(4))).join(",");
  const said = (button, text) => {
    const before = button.textContent;
    button.textContent = text;
    setTimeout(() => (button.textContent = before), 1200);
  };
  const copy = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.body.appendChild(Object.assign(document.createElement("textarea"), { value: text }));
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    said(button, "Copied");
  };
  $("copy-z").addEventListener("click", () => copy($("copy-z"), `[${codeText()}]`));
  $("copy-link").addEventListener("click", () => {
    const more = (isConditional ? `&c=${state.condition}` : "") + (hasLevels ? `&k=${state.kept}` : "");
    history.replaceState(null, "", `#z=${codeText()}${more}`);
    copy($("copy-link"), location.href);
  });
  $("download").addEventListener("click", () => {
    let canvas = mainCanvas;
    if (!canvas) return;
    if (isImage) {
      const factor = Math.max(1, Math.floor(512 / canvas.width));
      canvas = Object.assign(document.createElement("canvas"), { width: mainCanvas.width * factor, height: mainCanvas.height * factor });
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(mainCanvas, 0, 0, canvas.width, canvas.height);
    }
    const link = Object.assign(document.createElement("a"), { href: canvas.toDataURL("image/png"), download: `${data.title.replace(/\W+/g, "-")}.png` });
    link.click();
  });
  $("download").hidden = !mainCanvas;

  const root = document.documentElement;
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  const setTheme = (theme) => {
    root.dataset.theme = theme;
    scatter.draw();
  };
  wanted.addEventListener("change", () => setTheme(wanted.matches ? "dark" : "light"));
  $("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));

  const median = () => {
    const sorted = [...latencies].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : NaN;
  };

  function showHelp() {
    const facts = [
      ...data.facts,
      ["codes shown", N],
      ["decoding here", `${decoder.milliseconds.toFixed(1)} ms${decoder.worker ? ", in a worker" : ""}`],
      ...(latencies.length ? [["pointer to picture (median)", `${median().toFixed(1)} ms`]] : []),
    ];
    const text = (tag, content) => Object.assign(document.createElement(tag), { textContent: content });
    const list = document.createElement("dl");
    for (const [name, value] of facts) list.append(text("dt", name), text("dd", typeof value === "number" ? formatNumber(value) : value));
    const keys = document.createElement("p");
    keys.innerHTML =
      "<kbd>← ↑ → ↓</kbd> move z (Shift: more) · <kbd>Space</kbd> plays the path · <kbd>M</kbd> mean · <kbd>P</kbd> prior draw · " +
      "<kbd>R</kbd> random example · <kbd>Q</kbd> posterior draw · <kbd>+</kbd> <kbd>−</kbd> zoom · <kbd>0</kbd> fit · <kbd>T</kbd> dark or light · <kbd>Esc</kbd> clears";
    const body = $("panel-text");
    body.replaceChildren(
      text("p", `Every point is the mean code of a test example. Moving over the plane decodes the code under the pointer, in this page: nothing is sent anywhere. A click keeps it; its other dimensions stay as they are.`),
      keys,
      list,
      text("p", "Made by"),
      text("code", data.command),
    );
    $("panel").showModal();
  }
  $("help").addEventListener("click", showHelp);

  // ---- keys -------------------------------------------------------------------------

  function moveBy(dx, dy) {
    if (data.codebook) {
      if (state.cell >= 0) changeCell(state.cell, state.z[state.cell] + Math.sign(dx + dy));
      return;
    }
    const at = current();
    const z = Float32Array.from(at.z);
    if (state.view === "pca") {
      for (let d = 0; d < top; d++) z[d] += dx * pca.directions[d] + dy * pca.directions[top + d];
    } else if (state.view === "axes") {
      z[state.x] += dx;
      if (D > 1) z[state.y] += dy;
    }
    clearMarks();
    setCode(z);
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("panel").open) return;
    const isField = event.target.matches?.("input, select, textarea");
    const step = (event.shiftKey ? 0.5 : 0.1) * (D > 2 && state.view === "axes" ? data.spread[state.x] || 1 : 1);
    const keys = {
      ArrowLeft: () => moveBy(-step, 0),
      ArrowRight: () => moveBy(step, 0),
      ArrowUp: () => moveBy(0, step),
      ArrowDown: () => moveBy(0, -step),
      "+": () => scatter.zoom(1.25),
      "=": () => scatter.zoom(1.25),
      "-": () => scatter.zoom(0.8),
      0: () => scatter.fit(),
      m: () => $("to-mean").click(),
      p: () => $("to-prior").click(),
      r: () => $("to-example").click(),
      q: () => $("to-posterior").click(),
      t: () => $("theme").click(),
      "?": showHelp,
      Escape: () => {
        scatter.selected = null;
        clearMarks();
        scatter.draw();
        update();
      },
    };
    if (event.key === " " && !event.target.matches?.("button, select, summary")) {
      event.preventDefault();
      play(!state.playing);
      return;
    }
    if (isField && event.key !== "Escape") return;
    if (event.key.startsWith("Arrow") && event.target.matches?.("#sliders, .bars")) return;
    const run = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!run) return;
    event.preventDefault();
    run();
  });

  // ---- start ------------------------------------------------------------------------

  function readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    const z = given.get("z")?.split(",").map(Number);
    if (z?.length !== D || !z.every(Number.isFinite)) return false;
    if (given.has("k") && hasLevels) setKept(Math.max(1, Math.min(data.levels.length, Number(given.get("k")) || 1)));
    const c = Math.floor(Number(given.get("c")) || 0);
    setCode(z, { condition: c < (data.condition?.classes ?? 0) ? c : 0 });
    return true;
  }
  addEventListener("hashchange", readHash);

  const page = {
    compile,
    makeRunner: (slow) => new Runner(data.decoder, url, slow),
    data,
    state,
    decoder,
    scatter,
    latencies,
    median,
    encode,
    encodeOwn,
    setCode,
    setExample,
    placeOf,
    pictures: 0,
    pixels: null,
    decodeNow: (z, condition = 0, more = {}) =>
      Array.from(decoder.now({ inputs: { z: Float32Array.from(z), condition, ...more }, seed: 1 })),
  };
  window.explorer = page;

  $("title").textContent = data.title;
  const size = data.shape.join(" × ");
  $("subtitle").textContent = `${data.model} · ${size} · ${hasLevels ? `${data.levels.length} levels` : data.codebook ? `${D} codes of ${data.codebook.size} entries` : `${D} latent dimension${D > 1 ? "s" : ""}`} · ${N.toLocaleString("en")} test codes`;
  setTheme(wanted.matches ? "dark" : "light");
  scatter.resize();
  new ResizeObserver(fitPicture).observe(mainBox);
  new ResizeObserver(() => {
    const wasEmpty = !scatter.width;
    scatter.resize();
    if (wasEmpty) scatter.fit();
  }).observe($("plot"));
  placePoints();
  $("original").style.visibility = $("reconstruction").style.visibility = "hidden";
  if (!readHash()) setExample(0);
  page.ready = performance.now();
  page.compiled = page.ready - opened;
  if (sheet) {
    sheet.onload = () => showPair(current());
    sheet.src = data.examples.sheet;
  }
}

if (typeof document === "undefined") serve();
else start();
