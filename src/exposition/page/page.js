"use strict";
// Everything that a client sent (names, addresses, statements) becomes a text node by append() or
// textContent. There is no other way from status.json into the document.
(() => {
  const EVERY_MS = 2000;
  const PATIENCE_MS = 5000;
  const SVG = "http://www.w3.org/2000/svg";

  const $ = (selector) => document.querySelector(selector);
  let last = null;
  let looks = 0;
  let timer = 0;
  let busy = false;

  // ---- making elements -------------------------------------------------------------------------

  const el = (tag, className, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const span = (className, ...children) => el("span", className, ...children);
  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
    element.append(...children);
    return element;
  };

  // ---- words -----------------------------------------------------------------------------------

  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  const number = (n) => (n >= 100 || Number.isInteger(n) ? whole : tenth).format(n);
  const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;
  const time = (seconds) => {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds < 0.001) return `${whole.format(seconds * 1e6)} µs`;
    if (seconds < 0.01) return `${(seconds * 1e3).toFixed(1)} ms`;
    if (seconds < 1) return `${whole.format(seconds * 1e3)} ms`;
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    const s = Math.floor(seconds);
    if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  };
  const bytes = (n) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
    return `${tenth.format(n)} ${units[unit]}`;
  };
  const named = (application) => application || "(no application_name)";
  const whose = (c) => `${c.user} @ ${c.database} · ${c.address}`;
  const more = (section, n, what) => {
    $(`#${section} .more`).textContent = n > 0 ? `and ${number(n)} more ${what}, not listed` : "";
  };
  const count = (section, text) => { $(`#${section} .count`).textContent = text; };
  const fill = (section, rows, empty) => {
    const place = $(`#${section} .rows`);
    place.replaceChildren(...(rows.length ? rows : [el("p", "empty", empty)]));
  };

  // ---- the parts of the page -------------------------------------------------------------------

  const head = (status) => {
    const state = $("#state");
    state.className = `pill ${status.unready ? "bad" : status.totals.waiting > 0 ? "warn" : "good"}`;
    state.textContent = status.unready || (status.totals.waiting > 0 ? "clients wait" : "serving");
    $("#where").textContent = status.datacenter ? `in ${status.datacenter}` : "";
    $("#when").textContent = `as of ${new Date(status.collected * 1000).toLocaleTimeString()}`;
    $("#about").textContent =
      `pooler ${status.version} · up ${time(status.uptime_seconds)} · ${plural(status.workers, "worker", "workers")}`;
    const waits = status.totals.waiting;
    document.title = waits > 0 ? `(${waits} waiting) pooler` : "pooler";
  };

  const banners = (status, trouble) => {
    const all = [];
    if (trouble) {
      const when = status ? new Date(status.collected * 1000).toLocaleTimeString() : "ever";
      all.push(el("p", "banner bad", `No answer from the pooler (${trouble}). What is shown is from ${when}.`));
    }
    const silent = status ? status.silent_workers : [];
    if (silent.length) {
      all.push(el("p", "banner",
        `${silent.length === 1 ? "Worker" : "Workers"} ${silent.join(", ")} did not answer in time: ` +
        "who waits and holds there is not listed."));
    }
    $("#banners").replaceChildren(...all);
    document.body.classList.toggle("stale", Boolean(trouble));
  };

  const spark = (values) => {
    const max = Math.max(...values, 1e-9);
    const step = 100 / Math.max(values.length - 1, 1);
    const path = values.map((v, i) => `${i ? "L" : "M"}${(i * step).toFixed(1)} ${(28 - (24 * v) / max).toFixed(1)}`);
    return svg("svg", { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("path", { d: path.join("") }));
  };

  const tile = (id, label, value, unit, note, bad, extra) => {
    const shown = el("div", "value", value, unit ? el("small", "", ` ${unit}`) : null);
    const made = el("div", bad ? "tile bad" : "tile", el("div", "label", label), shown, el("div", "note", note), extra);
    made.id = `tile-${id}`;
    return made;
  };

  const tiles = (status) => {
    const t = status.totals;
    const points = status.history.points;
    const now = points[points.length - 1];
    const servers = t.servers_active + t.servers_idle + t.servers_connecting;
    const failed = status.errors.reduce((sum, e) => sum + e.count, 0);
    const rates = points.map((p) => p.transactions_per_second);
    const worst = status.waiting.length ? named(status.waiting[0].application_name) : "";
    $("#tiles").replaceChildren(
      tile("waiting", "Waiting", number(t.waiting), t.waiting === 1 ? "client" : "clients",
        t.waiting > 0 ? `${time(t.oldest_wait_seconds)}${worst ? `, ${worst}` : ""}` : "nobody waits", t.waiting > 0),
      tile("clients", "Clients", number(t.clients), "", `in ${plural(t.pools, "pool", "pools")}`, false),
      tile("servers", "Servers in use", number(t.servers_active), `of ${number(servers)}`,
        t.servers_connecting > 0 ? `${number(t.servers_connecting)} opening` : `${number(t.servers_idle)} idle`, false),
      tile("rate", "Transactions", now ? number(now.transactions_per_second) : "–", "/s", "", false,
        rates.length > 1 ? spark(rates) : null),
      tile("p99", "Transaction p99", now ? time(now.transaction_p99_seconds) : "–", "",
        now ? `p50 ${time(now.transaction_p50_seconds)}` : "", false),
      tile("errors", "Errors", number(failed), "", `in ${covered(status)}`, false),
    );
  };

  const covered = (status) => {
    const points = status.history.points;
    const seconds = points.length ? points[0].ago_seconds + status.history.every_seconds : 0;
    return seconds < 90 ? plural(Math.round(seconds), "second", "seconds") : `${Math.round(seconds / 60)} minutes`;
  };

  const segment = (className, n) => {
    if (!(n > 0)) return null;
    const part = el("i", className);
    part.style.flexGrow = String(n);
    return part;
  };

  const pool = (p) => {
    const closed = Math.max(p.size - p.active - p.idle - p.connecting, 0);
    // A long queue must not squeeze the servers out of sight.
    const queue = Math.min(p.waiting, 2 * Math.max(p.size, 1));
    const place = [p.role === "primary" ? "" : p.role, p.host || "", p.datacenter].filter(Boolean).join(" · ");
    const bar = el("div", "bar", segment("active", p.active), segment("connecting", p.connecting),
      segment("idle", p.idle), segment("free", closed), segment("waiting", queue));
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label",
      `${p.active} in use, ${p.idle} idle, ${p.connecting} opening, of ${p.size}; ${p.waiting} waiting`);
    const line = el("div", "line", span("name", `${p.database} / ${p.user}`),
      p.mode === "transaction" ? null : span("chip", p.mode), p.paused ? span("chip warn", "paused") : null,
      span("end", p.waiting > 0
        ? span("hot", `${number(p.waiting)} waiting, ${time(p.oldest_wait_seconds)}`)
        : span("muted small", plural(p.clients, "client", "clients"))));
    const under = el("div", "line small muted", span("", place),
      span("end", `${number(p.active)} of ${number(p.size)} in use`));
    return el("div", "row pool", line, bar, under);
  };

  const pools = (status) => {
    count("pools", number(status.totals.pools));
    fill("pools", status.pools.map(pool), "No client has logged in yet.");
    more("pools", status.left_out.pools, "pools");
  };

  const waiter = (w) => el("div", "row waiter",
    el("div", "line", span("chip", `#${w.position}`), span("name", named(w.application_name)),
      span("small muted", whose(w)), span("end hot", time(w.waited_seconds))),
    w.holder
      ? el("div", "small", span("muted", "behind "), named(w.holder.application_name),
        span("muted", ` (client ${w.holder.client}), with a server for ${time(w.holder.held_seconds)}`))
      : el("div", "small muted", "and nobody has a server of its pool"));

  const holder = (h) => {
    const kind = h.state === "idle in transaction" ? "chip warn" : h.state === "active" ? "chip good" : "chip";
    return el("div", "row holder",
      el("div", "line", span("name", named(h.application_name)), span(kind, h.state),
        h.waiting > 0 ? span("chip bad", `${number(h.waiting)} ${h.waiting === 1 ? "waits" : "wait"}`) : null,
        span(h.waiting > 0 ? "end hot" : "end", time(h.held_seconds))),
      el("div", "small muted", `${h.client} · ${whose(h)} → ${h.host}, pid ${h.process_id}`),
      h.statement ? el("code", "", h.statement) : null);
  };

  const queue = (status) => {
    count("waiting", status.totals.waiting > 0 ? number(status.totals.waiting) : "");
    fill("waiting", status.waiting.map(waiter), "Nobody waits for a server connection.");
    more("waiting", status.left_out.waiting, "clients");
    count("holding", status.holding.length ? number(status.holding.length + status.left_out.holding) : "");
    fill("holding", status.holding.map(holder), "Nobody has a server connection now.");
    more("holding", status.left_out.holding, "clients");
  };

  const host = (h) => el("div", "row host",
    el("div", "line", span(`dot ${["up", "lags", "down"].includes(h.health) ? h.health : ""}`),
      span("name", h.host), span(h.role === "primary" ? "chip primary" : "chip", h.role),
      h.health === "up" ? null : span(h.health === "down" ? "chip bad" : "chip warn", h.health),
      span("end small muted", h.lag_seconds === null
        ? `${number(h.active)} of ${number(h.servers)} connections in use`
        : `lag ${time(h.lag_seconds)}, ${bytes(h.lag_bytes || 0)} · ${number(h.active)} of ${number(h.servers)} in use`)),
    h.why ? el("div", "small hot", h.why) : null);

  const hosts = (status) => {
    const places = new Map();
    for (const h of status.hosts) {
      const key = JSON.stringify([h.cluster, h.datacenter]);
      if (!places.has(key)) places.set(key, []);
      places.get(key).push(h);
    }
    const several = new Set(status.hosts.map((h) => h.cluster)).size > 1;
    const rows = [];
    for (const group of places.values()) {
      const { cluster, datacenter, local } = group[0];
      const title = [several ? cluster : "", datacenter].filter(Boolean).join(" · ");
      if (title) rows.push(el("div", "datacenter", title, local ? " · the pooler's own" : ""));
      rows.push(...group.map(host));
    }
    fill("hosts", rows, "No host is configured.");
    more("hosts", status.left_out.hosts, "hosts");
  };

  const errors = (status) => {
    count("errors", status.errors.length ? `in ${covered(status)}` : "");
    const most = status.errors.length ? status.errors[0].count : 1;
    const row = (e) => {
      const part = el("i");
      part.style.width = `${Math.max((100 * e.count) / most, 1)}%`;
      return el("div", "row error",
        el("div", "line", span("name", e.sqlstate), span("small muted", e.class),
          span("end", number(e.count), span("small muted", ` · ${time(e.last_seconds)} ago`))),
        el("div", "meter", part));
    };
    fill("errors", status.errors.map(row), "None.");
    more("errors", status.left_out.errors, "codes");
  };

  // ---- the chart -------------------------------------------------------------------------------

  const SERIES = [
    ["p50", "transaction p50", "transaction_p50_seconds"],
    ["p99", "transaction p99", "transaction_p99_seconds"],
    ["wait", "wait p99", "wait_p99_seconds"],
  ];

  const legend = (point) => {
    const parts = [];
    for (const [kind, label, field] of SERIES) {
      parts.push(el("i", kind === "wait" ? "waiting" : kind), `${label} `, el("b", "", time(point ? point[field] : null)));
    }
    parts.push(el("i", "rate"), "transactions ", el("b", "", point ? `${number(point.transactions_per_second)}/s` : "–"));
    $("#latency .key").replaceChildren(...parts);
  };

  const chart = (status) => {
    const { points, every_seconds: every } = status.history;
    const place = $("#latency .chart");
    count("latency", points.length ? `the last ${covered(status)}` : "");
    legend(points[points.length - 1]);
    if (!points.length) {
      place.replaceChildren(el("p", "empty", `The first point comes ${time(every)} after the start.`));
      return;
    }
    const width = Math.max(place.clientWidth, 200);
    const [top, high, gap, low, left, right] = [8, 170, 14, 44, 46, 8];
    const height = top + high + gap + low + 20;
    const span_s = Math.max(points[0].ago_seconds + every, 60);
    const x = (ago) => left + (width - left - right) * (1 - ago / span_s);
    const values = points.flatMap((p) => SERIES.map(([, , field]) => p[field])).filter((v) => v > 0);
    const from = Math.floor(Math.log10(Math.min(...values, 0.001)));
    const to = Math.max(Math.ceil(Math.log10(Math.max(...values, 0.001))), from + 1);
    const y = (v) => top + high * (1 - (Math.log10(Math.max(v, 10 ** from)) - from) / (to - from));
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
      "aria-label": "Latency and transactions a second over the last minutes" });
    for (let decade = from; decade <= to; decade += 1) {
      const at = y(10 ** decade);
      drawing.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }),
        svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, axis(10 ** decade)));
    }
    const minutes = span_s > 300 ? 2 : 1;
    for (let ago = 0; ago <= span_s; ago += 60 * minutes) {
      drawing.append(svg("text", { x: x(ago), y: height - 4, "text-anchor": ago ? "middle" : "end" },
        ago ? `−${ago / 60} min` : "now"));
    }
    between(drawing, points, x, y);
    for (const [kind, , field] of SERIES) line(drawing, points, kind, field, x, y);
    rates(drawing, points, x, every, { base: top + high + gap + low, low, span_s, width: width - left - right });
    pointer(drawing, points, x, { top, bottom: top + high + gap + low });
    place.replaceChildren(drawing);
  };

  const axis = (seconds) => {
    if (seconds < 0.0009) return `${Math.round(seconds * 1e6)} µs`;
    if (seconds < 0.9) return `${Math.round(seconds * 1e3)} ms`;
    return `${Math.round(seconds)} s`;
  };

  // A point that has no value interrupts the line; one that stands alone is a dot.
  const line = (drawing, points, kind, field, x, y) => {
    let path = "";
    points.forEach((p, i) => {
      if (p[field] === null) return;
      const before = i > 0 && points[i - 1][field] !== null;
      const after = i + 1 < points.length && points[i + 1][field] !== null;
      path += `${before ? "L" : "M"}${x(p.ago_seconds).toFixed(1)} ${y(p[field]).toFixed(1)}`;
      if (!before && !after) drawing.append(svg("circle", { class: kind, cx: x(p.ago_seconds), cy: y(p[field]), r: 2.5 }));
    });
    drawing.append(svg("path", { class: kind, d: path }));
  };

  const between = (drawing, points, x, y) => {
    const known = points.filter((p) => p.transaction_p50_seconds !== null && p.transaction_p99_seconds !== null);
    if (known.length < 2) return;
    const there = known.map((p) => `${x(p.ago_seconds).toFixed(1)} ${y(p.transaction_p99_seconds).toFixed(1)}`);
    const back = known.map((p) => `${x(p.ago_seconds).toFixed(1)} ${y(p.transaction_p50_seconds).toFixed(1)}`).reverse();
    drawing.append(svg("path", { class: "between", d: `M${there.concat(back).join("L")}Z` }));
  };

  const rates = (drawing, points, x, every, { base, low, span_s, width }) => {
    const most = Math.max(...points.map((p) => p.transactions_per_second), 1);
    const wide = Math.max((width * every) / span_s - 1, 1);
    for (const p of points) {
      const tall = (low * p.transactions_per_second) / most;
      drawing.append(svg("rect", { class: "rate", x: x(p.ago_seconds) - wide, y: base - tall, width: wide, height: tall }));
      if (p.errors > 0) {
        drawing.append(svg("rect", { class: "failed", x: x(p.ago_seconds) - wide, y: base + 1, width: wide, height: 3 }));
      }
    }
    drawing.append(svg("text", { x: x(span_s) - 6, y: base - low + 9, "text-anchor": "end" }, `${number(most)}/s`));
  };

  const pointer = (drawing, points, x, { top, bottom }) => {
    const cursor = svg("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
    drawing.append(cursor);
    drawing.addEventListener("pointermove", (event) => {
      const at = event.clientX - drawing.getBoundingClientRect().left;
      const off = (p) => Math.abs(x(p.ago_seconds) - at);
      const nearest = points.reduce((a, b) => (off(b) < off(a) ? b : a));
      cursor.setAttribute("x1", String(x(nearest.ago_seconds)));
      cursor.setAttribute("x2", String(x(nearest.ago_seconds)));
      cursor.setAttribute("visibility", "visible");
      legend(nearest);
    });
    drawing.addEventListener("pointerleave", () => {
      cursor.setAttribute("visibility", "hidden");
      legend(points[points.length - 1]);
    });
  };

  // ---- looking again ---------------------------------------------------------------------------

  const render = (status) => {
    head(status);
    tiles(status);
    pools(status);
    queue(status);
    hosts(status);
    errors(status);
    chart(status);
  };

  const look = async () => {
    if (busy) return;
    busy = true;
    clearTimeout(timer);
    const patience = new AbortController();
    const late = setTimeout(() => patience.abort(), PATIENCE_MS);
    try {
      const answer = await fetch("status.json", { cache: "no-store", signal: patience.signal });
      if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`.trim());
      last = await answer.json();
      render(last);
      banners(last, null);
      looks += 1;
      document.body.dataset.looks = String(looks);
    } catch (error) {
      const why = error.name === "AbortError" ? `${PATIENCE_MS / 1000} s have passed` : error.message;
      banners(last, why);
      $("#state").className = "pill bad";
      $("#state").textContent = "no answer";
    } finally {
      clearTimeout(late);
      busy = false;
      if (!document.hidden) timer = setTimeout(look, EVERY_MS);
    }
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look();
  });
  let wide = 0;
  new ResizeObserver((seen) => {
    const now = Math.round(seen[0].contentRect.width);
    if (last && now !== wide) chart(last);
    wide = now;
  }).observe($("#latency .chart"));
  look();
})();
