// Draws the pictures and the table from the data that the page carries.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const trials = page.trials;
  const HUES = 8;
  let selected = null;
  const drawings = [];

  // ------------------------------------------------------------------ words

  const short = (v) =>
    v === null || v === undefined ? "–"
      : typeof v !== "number" ? String(v)
        : Number.isInteger(v) && Math.abs(v) < 1e6 ? String(v)
          : String(Number(v.toPrecision(4)));

  const trialWords = (row) =>
    trials.columns
      .map((name, i) => [name, trials.rows[row][i]])
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `${name} ${short(value)}`);

  const tick = (v) => (Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential().replace("e+", "e") : short(v));

  // ---------------------------------------------------------------- pictures

  // A logarithmic axis names its decades, and 2 and 5 where it has hardly one.
  const logTick = (v, _, ticks) => {
    const digit = Number(v.toExponential(0)[0]);
    const few = ticks && ticks.length && ticks[ticks.length - 1] / ticks[0] < 200;
    return digit === 1 || (few && (digit === 2 || digit === 5)) ? tick(v) : "";
  };

  const scale = (axis, extra = {}) => ({
    label: axis.label,
    type: axis.log ? "log" : "linear",
    tickFormat: axis.log ? logTick : tick,
    ...(axis.log ? { ticks: 4 } : {}),
    ...extra,
  });

  const hue = (index) => (index < HUES ? `var(--c${index})` : "var(--rest)");

  const frame = (width, options) =>
    Plot.plot({
      width,
      height: Math.max(240, Math.min(360, width * 0.6)),
      marginLeft: 56,
      marginBottom: 40,
      style: { background: "transparent", color: "inherit", overflow: "visible" },
      ...options,
    });

  const points = (series, index) =>
    series.x.map((x, i) => ({
      x,
      y: series.y[i],
      low: series.low ? series.low[i] : null,
      high: series.high ? series.high[i] : null,
      name: series.name,
      row: series.rows ? series.rows[i] : series.row,
      index,
    }));

  const KINDS = {
    // Lines over an axis, with bands: curves, sensitivity, whatever moves over steps.
    lines(spec, width, on) {
      const all = spec.series.map(points);
      // Those that are picked, else the first few; the others stay grey behind them.
      const chosen = on.picked.size ? [...on.picked] : all.map((_, i) => i).slice(0, spec.colours ?? HUES);
      const colour = new Map(chosen.map((index, place) => [index, hue(place)]));
      const front = chosen.flatMap((index) => all[index]);
      const back = all.flatMap((of, index) => (colour.has(index) ? [] : of));
      const of = (d) => colour.get(d.index);
      const dots = spec.dots || all.every((line) => line.length < 2);
      const mine = selected === null ? [] : all.flat().filter((d) => d.row === selected);
      const curve = spec.curves && selected !== null && spec.curves[selected];
      const own = curve ? curve.map((y, i) => ({ x: spec.steps[i], y })) : [];
      return frame(width, {
        x: scale(spec.x),
        clip: Boolean(spec.domain),
        y: scale(spec.y, spec.domain ? { domain: spec.domain, grid: true } : { nice: true, grid: true }),
        marks: [
          Plot.line(back, { x: "x", y: "y", z: "index", stroke: "var(--rest)", strokeOpacity: 0.6, strokeWidth: 1 }),
          ...(spec.rules ?? []).map((rule) => Plot.ruleY([rule], { stroke: "var(--quiet)", strokeDasharray: "3,3" })),
          Plot.areaY(front.filter((d) => d.low !== null && d.high !== null), { x: "x", y1: "low", y2: "high", z: "index", fill: of, fillOpacity: 0.15 }),
          Plot.line(front, { x: "x", y: "y", z: "index", stroke: of, strokeWidth: 1.75 }),
          dots ? Plot.dot(front.filter((d) => d.y !== null), { x: "x", y: "y", fill: of, r: 2.5 }) : null,
          own.length ? Plot.line(own, { x: "x", y: "y", stroke: "var(--mark)", strokeWidth: 2.5 }) : null,
          Plot.dot(mine.filter((d) => d.y !== null), { x: "x", y: "y", stroke: "var(--mark)", strokeWidth: 2.5, r: 6 }),
          Plot.tip(all.flat().filter((d) => d.y !== null), Plot.pointer({
            clip: null,
            x: "x", y: "y",
            title: (d) => `${d.name}\n${spec.x.label} ${short(d.x)}\n${spec.y.label} ${short(d.y)}` + (d.low === null || d.high === null ? "" : `\nfrom ${short(d.low)} to ${short(d.high)}`),
          })),
        ],
      });
    },

    // A row each, with its value, its interval and what that is made of.
    intervals(spec, width) {
      const rows = spec.rows;
      const dots = rows.flatMap((r) => (r.dots ?? []).map(([x, row]) => ({ label: r.label, x, row })));
      const longest = Math.max(...rows.map((r) => r.label.length));
      const marginLeft = Math.min(longest * 6.6 + 16, width * 0.5);
      const most = Math.floor(marginLeft / 6.6) - 2;
      return frame(width, {
        height: rows.length * 20 + 64,
        marginLeft,
        x: scale(spec.x, { grid: true, nice: true }),
        y: { domain: rows.map((r) => r.label), label: null, tickSize: 0, tickFormat: (t) => (t.length > most ? `${t.slice(0, most - 1)}…` : t) },
        marks: [
          Plot.ruleY(rows.filter((r) => r.low !== null && r.high !== null), { y: "label", x1: "low", x2: "high", stroke: "var(--c0)", strokeWidth: 6, strokeOpacity: 0.25 }),
          Plot.tickX(dots.filter((d) => d.x !== null), { x: "x", y: "label", stroke: "var(--c0)", inset: 4 }),
          Plot.dot(rows.filter((r) => r.value !== null), { x: "value", y: "label", fill: "var(--c0)", r: 4 }),
          Plot.text(rows.filter((r) => r.value === null), { y: "label", frameAnchor: "left", dx: 4, text: () => "diverged", fill: "var(--warning)" }),
          Plot.tickX(dots.filter((d) => d.row === selected && selected !== null && d.x !== null), { x: "x", y: "label", stroke: "var(--mark)", strokeWidth: 3 }),
          Plot.tip(dots.length ? dots.filter((d) => d.x !== null) : rows, Plot.pointer({
            x: dots.length ? "x" : "value", y: "label",
            title: (d) => (d.row === undefined || d.row === null ? `${d.label}\n${short(d.value)} (${short(d.low)} to ${short(d.high)})` : trialWords(d.row).join("\n")),
          })),
        ],
      });
    },

    // A dot a trial over one hyper-parameter, and the best at each place.
    dots(spec, width) {
      const x = trials.columns.indexOf(spec.column);
      const y = trials.columns.indexOf(spec.value);
      const all = trials.rows
        .map((row, index) => ({ x: row[x], y: row[y], row: index }))
        .filter((d) => d.x !== null && d.y !== null);
      const best = (spec.best ?? []).map(([at, value]) => ({ x: at, y: value }));
      return frame(width, {
        x: scale(spec.x),
        y: scale(spec.y, { nice: true, grid: true }),
        marks: [
          Plot.dot(all, { x: "x", y: "y", r: 2.5, fill: "var(--c0)", fillOpacity: all.length > 300 ? 0.25 : 0.5 }),
          Plot.line(best, { x: "x", y: "y", stroke: "var(--c1)", strokeWidth: 2 }),
          Plot.dot(all.filter((d) => d.row === selected), { x: "x", y: "y", stroke: "var(--mark)", strokeWidth: 2.5, r: 6 }),
          Plot.tip(all, Plot.pointer({ x: "x", y: "y", title: (d) => trialWords(d.row).join("\n") })),
        ],
      });
    },

    // Each trial a line across its hyper-parameters to its value.
    parallel(spec, width) {
      const at = spec.axes.map((axis) => ({ ...axis, index: trials.columns.indexOf(axis.column) }));
      const place = at.map((axis) => {
        const values = spec.rows.map((row) => trials.rows[row][axis.index]).filter((v) => v !== null);
        if (values.some((v) => typeof v !== "number")) return d3.scalePoint([...new Set(values.map(String))], [0, 1]);
        const [low, high] = d3.extent(values);
        return (axis.log ? d3.scaleLog() : d3.scaleLinear()).domain(low === high ? [low * 0.9, high * 1.1 + 1e-9] : [low, high]).range([0, 1]);
      });
      const value = at.length - 1;
      const lines = spec.rows.flatMap((row) =>
        at.map((axis, i) => {
          const v = trials.rows[row][axis.index];
          const y = v === null ? null : place[i](place[i].bandwidth ? String(v) : v);
          const last = trials.rows[row][at[value].index];
          return { axis: axis.label, y, row, shade: last === null ? null : place[value](last) };
        }));
      const ticks = at.flatMap((axis, i) => {
        const values = place[i].bandwidth ? place[i].domain() : place[i].ticks(4);
        const some = values.length > 9 ? values.filter((v) => /^1e|^1$|^0\.0*1$|^10+$/.test(String(v))) : values;
        return some.map((v) => ({ axis: axis.label, y: place[i](v), text: place[i].bandwidth ? v : tick(v) }));
      });
      const best = (d) => (spec.max ? d.shade : 1 - d.shade);
      return frame(width, {
        height: 320,
        marginLeft: width / at.length < 90 ? 64 : 40,
        marginRight: 40,
        x: { domain: at.map((axis) => axis.label), label: null, type: "point", padding: 0.15, tickRotate: width / at.length < 90 ? -25 : 0 },
        marginBottom: width / at.length < 90 ? 60 : 40,
        y: { axis: null, domain: [0, 1], inset: 8 },
        marks: [
          Plot.line(lines, { x: "axis", y: "y", z: "row", stroke: (d) => (d.shade === null ? "var(--rest)" : d3.interpolateViridis(0.1 + 0.8 * best(d))), strokeOpacity: spec.rows.length > 100 ? 0.35 : 0.7, strokeWidth: 1.25 }),
          Plot.ruleX(at, { x: "label", stroke: "currentColor" }),
          Plot.text(ticks, { x: "axis", y: "y", text: "text", dx: -4, textAnchor: "end", fontSize: 11, fill: "currentColor", stroke: "var(--card)", strokeWidth: 4 }),
          Plot.line(lines.filter((d) => d.row === selected), { x: "axis", y: "y", z: "row", stroke: "var(--mark)", strokeWidth: 3 }),
          Plot.tip(lines.filter((d) => d.y !== null), Plot.pointer({ x: "axis", y: "y", title: (d) => trialWords(d.row).join("\n") })),
        ],
      });
    },

    // A metric over two hyper-parameters, where they form a grid.
    cells(spec, width) {
      const values = spec.cells.map((c) => c.value).filter((v) => v !== null);
      const [low, high] = d3.extent(values);
      const log = low > 0 && high / low > 30 && !spec.max;
      const place = (log ? d3.scaleLog() : d3.scaleLinear()).domain([low, high === low ? low * 1.1 + 1e-9 : high]).range(spec.max ? [0, 1] : [1, 0]);
      const fill = (d) => (d.value === null ? "transparent" : d3.interpolateViridis(place(d.value)));
      return frame(width, {
        height: Math.max(200, spec.y.values.length * 28 + 70),
        marginLeft: 64,
        x: { domain: spec.x.values, label: spec.x.label, type: "band", tickFormat: tick, tickRotate: spec.x.values.length > 6 ? -45 : 0 },
        y: { domain: [...spec.y.values].reverse(), label: spec.y.label, type: "band", tickFormat: tick },
        marginBottom: spec.x.values.length > 6 ? 60 : 40,
        marks: [
          Plot.cell(spec.cells, { x: "x", y: "y", fill, inset: 0.5 }),
          Plot.text(spec.cells, { x: "x", y: "y", text: (d) => (d.value === null ? "×" : short(Number(d.value.toPrecision(3)))), fill: (d) => (d.value === null ? "var(--warning)" : place(d.value) > 0.6 ? "#111" : "#fff"), fontSize: 11 }),
          Plot.cell(spec.cells.filter((c) => selected !== null && c.rows.includes(selected)), { x: "x", y: "y", stroke: "var(--mark)", strokeWidth: 3, fill: "none" }),
          Plot.tip(spec.cells.map((c) => ({ ...c, row: c.rows[0] })), Plot.pointer({ x: "x", y: "y", title: (d) => `${spec.x.label} ${short(d.x)}\n${spec.y.label} ${short(d.y)}\n${spec.label} ${d.value === null ? "diverged" : short(d.value)}` })),
        ],
      });
    },
  };

  const draw = (drawing) => {
    const { node, spec } = drawing;
    const width = Math.max(260, Math.floor(node.clientWidth) || 600);
    const plot = KINDS[spec.kind](spec, width, drawing);
    plot.addEventListener("click", () => {
      const at = plot.value;
      if (at && at.row !== undefined && at.row !== null && trials) select(at.row);
    });
    node.replaceChildren(plot);
    drawing.width = width;
    drawing.stale = false;
  };

  const legend = (drawing) => {
    const names = drawing.spec.series.map((s) => s.name);
    if (names.length < 2) return;
    const box = document.createElement("div");
    box.className = "legend";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Lines in colour");
    const buttons = names.map((name, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => {
        if (!drawing.picked.delete(index)) drawing.picked.add(index);
        paint();
        draw(drawing);
      });
      return button;
    });
    const paint = () => {
      const chosen = drawing.picked.size ? [...drawing.picked] : names.map((_, i) => i).slice(0, drawing.spec.colours ?? HUES);
      buttons.forEach((button, index) => {
        const place = chosen.indexOf(index);
        button.style.setProperty("--of", place < 0 ? "var(--rest)" : hue(place));
        button.setAttribute("aria-pressed", drawing.picked.has(index));
      });
    };
    paint();
    box.append(...buttons);
    drawing.node.before(box);
  };

  for (const figure of document.querySelectorAll("[data-picture]")) {
    const spec = page.pictures[Number(figure.dataset.picture)];
    const drawing = { node: figure.querySelector(".drawing"), spec, picked: new Set(), stale: true, near: false };
    drawings.push(drawing);
    if (spec.kind === "lines") legend(drawing);
  }
  // Only what is near the screen is drawn, so that thousands of trials open at once.
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) {
      const drawing = drawings.find((d) => d.node === entry.target);
      drawing.near = entry.isIntersecting;
      if (drawing.near && drawing.stale) draw(drawing);
    }
  }, { rootMargin: "300px" });
  drawings.forEach((drawing) => watch.observe(drawing.node));
  const refresh = () => {
    for (const drawing of drawings) {
      drawing.stale = true;
      if (drawing.near) draw(drawing);
    }
  };
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => drawings.some((d) => d.near && d.node.clientWidth !== d.width) && refresh(), 150);
  });
  addEventListener("beforeprint", () => drawings.forEach((drawing) => drawing.stale && draw(drawing)));

  // ------------------------------------------------------------------- trials

  const select = (row) => {
    selected = selected === row ? null : row;
    const bar = document.getElementById("selected");
    if (bar) {
      bar.hidden = selected === null;
      const words = document.createElement("span");
      words.textContent = selected === null ? "" : trialWords(selected).join(" · ");
      const close = document.createElement("button");
      close.type = "button";
      close.textContent = "Close";
      close.addEventListener("click", () => select(selected));
      bar.replaceChildren(words, close);
    }
    for (const tr of document.querySelectorAll("#trial-table tbody tr")) tr.setAttribute("aria-selected", Number(tr.dataset.row) === selected);
    refresh();
  };
  addEventListener("keydown", (event) => event.key === "Escape" && selected !== null && select(selected));

  if (trials) {
    const table = document.getElementById("trial-table");
    const filter = document.getElementById("filter");
    const more = document.getElementById("more");
    const number = trials.columns.map((_, i) => trials.rows.every((r) => r[i] === null || typeof r[i] === "number"));
    const texts = trials.rows.map((row) => row.map(short));
    let order = trials.rows.map((_, i) => i);
    let shown = 50;
    let sorted = { column: null, down: false };
    const head = document.createElement("thead");
    const body = document.createElement("tbody");
    const titles = trials.columns.map((name, i) => {
      const th = document.createElement("th");
      th.scope = "col";
      if (number[i]) th.className = "number";
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => sort(i));
      th.append(button);
      return th;
    });
    const titleRow = document.createElement("tr");
    titleRow.append(...titles);
    head.append(titleRow);
    table.append(head, body);
    const sort = (column) => {
      sorted = { column, down: sorted.column === column && !sorted.down };
      const sign = sorted.down ? -1 : 1;
      const value = (i) => trials.rows[i][column];
      // What is absent stands last, whichever way.
      order.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
      });
      titles.forEach((th, i) => (i === column ? th.setAttribute("aria-sort", sorted.down ? "descending" : "ascending") : th.removeAttribute("aria-sort")));
      fill();
    };
    const fill = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = order.filter((i) => words.every((word) => texts[i].some((t) => t.toLowerCase().includes(word))));
      body.replaceChildren(...found.slice(0, shown).map((i) => {
        const tr = document.createElement("tr");
        tr.dataset.row = i;
        tr.tabIndex = 0;
        tr.setAttribute("aria-selected", i === selected);
        tr.append(...texts[i].map((text, column) => {
          const td = document.createElement("td");
          td.textContent = text;
          if (number[column]) td.className = "number";
          return td;
        }));
        tr.addEventListener("click", () => select(i));
        tr.addEventListener("keydown", (event) => event.key === "Enter" && select(i));
        return tr;
      }));
      document.getElementById("count").textContent = `${found.length} of ${trials.rows.length} trials`;
      more.hidden = found.length <= shown;
    };
    filter.addEventListener("input", () => { shown = 50; fill(); });
    more.addEventListener("click", () => { shown += 200; fill(); });
    fill();
  }

  // -------------------------------------------------------------------- copying

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // Where a page may not write there, the text is at least selected.
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
  }
})();
