// Draws the charts of a report from the JSON that the page carries. Everything that comes from it
// is set as text, never as markup.
"use strict";
(() => {
  const source = document.getElementById("data");
  const data = JSON.parse(source.textContent);
  const points = data.series || [];
  const charts = {}; // by id, for those who look from outside
  window.blasterCharts = charts;

  // ---- numbers and times -------------------------------------------------------------------
  const number = (value, digits = 3) =>
    value === null || value === undefined
      ? "–"
      : value.toLocaleString("en-US", { maximumFractionDigits: digits });
  const short = (value) =>
    Math.abs(value) >= 1000
      ? value.toLocaleString("en-US", { notation: "compact", maximumFractionDigits: 1 })
      : number(value, 3);
  const clock = (seconds) => {
    if (seconds < 120) return `${number(seconds, 1)} s`;
    const whole = Math.round(seconds);
    const two = (n) => String(n).padStart(2, "0");
    const minutes = Math.floor(whole / 60) % 60;
    const hours = Math.floor(whole / 3600);
    return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  };
  const ms = (value) => `${number(value)} ms`;
  const begun = (index) => (index ? points[index - 1].t : 0);
  const rate = (key) => points.map((p, i) => [p.t, p[key] / Math.max(p.t - begun(i), 1e-3)]);
  const values = (key, factor = 1) =>
    points.map((p) => [p.t, p[key] === null || p[key] === undefined ? null : p[key] * factor]);
  const any = (pairs) => pairs.some((pair) => pair[1] !== null);

  // ---- what all charts share ---------------------------------------------------------------
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = (more) => ({
    axisLabel: { color: css("--dim"), hideOverlap: true },
    axisLine: { lineStyle: { color: css("--line") } },
    splitLine: { lineStyle: { color: css("--line") } },
    nameTextStyle: { color: css("--dim"), align: "left" },
    ...more,
    ...(more.format && { axisLabel: { color: css("--dim"), hideOverlap: true, formatter: more.format } }),
  });
  const frame = (more) => ({
    animation: false,
    textStyle: { fontFamily: "inherit", color: css("--text") },
    grid: { left: 8, right: 18, top: 58, bottom: 8, containLabel: true },
    legend: { top: 0, left: 0, type: "scroll", textStyle: { color: css("--text") }, inactiveColor: css("--line") },
    ...more,
    tooltip: {
      confine: true,
      backgroundColor: css("--card"),
      borderColor: css("--line"),
      textStyle: { color: css("--text") },
      ...more.tooltip,
    },
  });
  const line = (name, pairs, colour, more = {}) => ({
    name,
    type: "line",
    data: pairs,
    color: css(colour),
    lineStyle: { width: 1.75 },
    showSymbol: pairs.length < 3,
    sampling: "lttb",
    ...more,
  });
  // Stages as bands, the warm-up's end and faults as lines.
  const first = (object, ...keys) => keys.map((key) => object[key]).find((v) => v !== undefined);
  const units = { ms: 1e-3, s: 1, m: 60, h: 3600 };
  const seconds = (text, key) => {
    const found = new RegExp(`\\b${key}=([0-9.]+)(ms|s|m|h)`).exec(text);
    return found ? Number(found[1]) * units[found[2]] : undefined;
  };
  // Name, begin and end of what was done to the target, and of what the sink was told to do at a
  // given time; holds of the rate, too.
  const events = () => [
    ...(data.faults || []).map((f) => [f.action, f.t, f.duration_s ? f.t + f.duration_s : null]),
    ...((data.configuration || {}).faults || []).map((text) => {
      const begin = seconds(text, "from") ?? seconds(text, "at") ?? (seconds(text, "for") && 0);
      return [text.split(/[=,@]/)[0], begin, begin + seconds(text, "for")];
    }),
    ...(data.holds || []).map((h) => ["held", h.begin_s, h.begin_s + h.duration_s]),
  ];
  const marks = () => {
    const lines = [];
    const bands = [];
    const stages = data.stages || [];
    const room = grid.querySelector(".chart").clientWidth / Math.max(stages.length, 1);
    if (stages.length > 1 && stages.length <= 40) {
      stages.forEach((stage, index) =>
        bands.push([
          {
            xAxis: stage.start_s,
            name: room > 150 ? String(stage.stage) : room > 20 ? String(index + 1) : "",
            itemStyle: { color: index % 2 ? "transparent" : css("--band") },
          },
          { xAxis: stage.start_s + stage.duration_s },
        ])
      );
    }
    if (data.warmup && data.warmup.duration_s > 0) {
      lines.push({ xAxis: data.warmup.duration_s, name: "warm-up ends" });
    }
    for (const [name, begin, end] of events().slice(0, 60)) {
      if (!Number.isFinite(begin)) continue;
      const colour = name === "held" ? css("--c5") : css("--c3");
      lines.push({ xAxis: begin, name: String(name), lineStyle: { color: colour } });
      if (Number.isFinite(end) && end > begin) {
        bands.push([{ xAxis: begin, itemStyle: { color: colour, opacity: 0.12 } }, { xAxis: end }]);
      }
    }
    return {
      markArea: {
        silent: true,
        label: { color: css("--dim"), position: "insideTop", overflow: "truncate" },
        data: bands,
      },
      markLine: {
        silent: true,
        symbol: "none",
        lineStyle: { color: css("--dim"), type: "dashed" },
        label: { color: css("--dim"), formatter: "{b}", position: "insideStartTop" },
        data: lines,
      },
    };
  };
  const overTime = (series, y) => {
    Object.assign(series[0], marks());
    return frame({
      tooltip: { trigger: "axis", axisPointer: { type: "line" } },
      xAxis: axis({ type: "value", min: 0, max: "dataMax", format: clock, splitLine: { show: false }, axisPointer: { label: { formatter: (p) => clock(p.value) } } }),
      yAxis: y,
      dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseMove: false, preventDefaultMouseMove: false }],
      series,
    });
  };
  const columns = (...pairs) => ({
    head: ["Time", ...pairs.map(([name]) => name)],
    rows: () => points.map((p, i) => [clock(p.t), ...pairs.map(([, value]) => value(p, i))]),
  });
  const of = (name, key, form = number) => [name, (p) => form(p[key])];
  const perSecond = (name, key) => [
    name,
    (p, i) => number(p[key] / Math.max(p.t - begun(i), 1e-3), 1),
  ];
  const MB = 1e-6;

  // ---- the charts: null where the results have nothing to draw ------------------------------
  const rates = () =>
    points.length && {
      title: "Rate",
      about: "Spans a second: offered by the schedule, accepted and failed.",
      time: true,
      option: () =>
        overTime(
          [
            line("offered", rate("scheduled"), "--c1", { lineStyle: { width: 1.75, type: "dashed" } }),
            line("accepted", rate("accepted"), "--c2"),
            line("failed", rate("failed"), "--c3"),
          ],
          axis({ type: "value", name: "spans/s", format: short })
        ),
      table: columns(
        perSecond("Offered/s", "scheduled"),
        perSecond("Accepted/s", "accepted"),
        perSecond("Failed/s", "failed")
      ),
    };

  const latency = () =>
    points.some((p) => p.p99_ms !== null) && {
      title: "Latency",
      about: "Response times from the scheduled time, percentiles of each interval.",
      time: true,
      option: () =>
        overTime(
          [
            ["p50", "p50_ms", "--c2"],
            ["p90", "p90_ms", "--c1"],
            ["p99", "p99_ms", "--c5"],
            ["p99.9", "p999_ms", "--c3"],
          ]
            .map(([name, key, colour]) => line(name, values(key), colour))
            .filter((series) => any(series.data)),
          axis({ type: "log", name: "ms", format: short })
        ),
      table: columns(
        of("p50, ms", "p50_ms"),
        of("p90, ms", "p90_ms"),
        of("p99, ms", "p99_ms"),
        of("p99.9, ms", "p999_ms")
      ),
    };

  const heat = () => {
    const map = data.latency_heat;
    if (!map) return null;
    const cells = [];
    map.counts.forEach((column, x) => {
      for (let i = 0; i < column.length; i += 2) {
        cells.push([x, column[i], Math.log10(column[i + 1]), column[i + 1]]);
      }
    });
    const most = Math.max(...cells.map((cell) => cell[3]));
    const row = (y) => `${number(map.bounds_ms[y])} to ${number(map.bounds_ms[y + 1])} ms`;
    return {
      title: "Latency heat map",
      about: "Requests by time and response time; the more of them, the stronger the colour.",
      option: () =>
        frame({
          legend: { show: false },
          grid: { left: 8, right: 18, top: 58, bottom: 8, containLabel: true },
          tooltip: {
            formatter: (item) =>
              `until ${clock(map.ends_s[item.data[0]])}<br>${row(item.data[1])}<br><b>${number(item.data[3])}</b> requests`,
          },
          visualMap: {
            dimension: 2,
            min: 0,
            max: Math.max(Math.log10(most), 0.01),
            orient: "horizontal",
            left: 0,
            top: 0,
            itemHeight: 110,
            itemWidth: 12,
            text: [`${number(most)} requests`, "1"],
            textStyle: { color: css("--text") },
            inRange: { color: [css("--heat0"), css("--heat1"), css("--heat2")] },
          },
          xAxis: axis({ type: "category", data: map.ends_s.map(clock), splitLine: { show: false } }),
          yAxis: axis({
            type: "category",
            name: "ms",
            data: map.bounds_ms.slice(0, -1).map((bound) => number(bound)),
            splitLine: { show: false },
          }),
          series: [
            {
              name: "requests",
              type: "heatmap",
              data: cells,
              encode: { x: 0, y: 1, value: 2 },
              progressive: 0,
              emphasis: { itemStyle: { borderColor: css("--text"), borderWidth: 1 } },
            },
          ],
        }),
      table: {
        head: ["Until", "Response time", "Requests"],
        rows: () => cells.map((cell) => [clock(map.ends_s[cell[0]]), row(cell[1]), number(cell[3])]),
      },
    };
  };

  const percentiles = () => {
    const found = data.latency_distribution;
    if (!found || !found.response.length) return null;
    const drawn = (pairs) => pairs.filter(([share]) => share < 1).map(([share, value]) => [1 / (1 - share), value]);
    const percent = (inverse) => `${number(100 * (1 - 1 / inverse), 6)} %`;
    return {
      title: "Latency by percentile",
      about: "The share of the requests that took no longer: response counts from the scheduled time, service from the send.",
      option: () =>
        frame({
          tooltip: { trigger: "axis", valueFormatter: ms, axisPointer: { type: "line", label: { show: true, formatter: (p) => percent(p.value) } } },
          xAxis: axis({ type: "log", min: 1, max: 10 ** Math.ceil(Math.log10(Math.max(...drawn(found.response).map(([x]) => x), 10))), format: percent }),
          yAxis: axis({ type: "log", name: "ms", format: short }),
          series: [
            line("response", drawn(found.response), "--c1", { sampling: undefined, step: "start" }),
            line("service", drawn(found.service), "--c2", { sampling: undefined, step: "start" }),
          ],
        }),
      table: {
        head: ["Of", "Percentile", "ms"],
        rows: () =>
          ["response", "service"].flatMap((name) =>
            found[name].map(([share, value]) => [name, `${number(100 * share, 6)} %`, number(value)])
          ),
      },
    };
  };

  const cpu = () =>
    points.length && {
      title: "CPU",
      about: "Of one core, as top prints it.",
      time: true,
      option: () =>
        overTime(
          [line("target", values("target_cpu"), "--c4"), line("generator", values("generator_cpu"), "--c1")].filter(
            (series) => any(series.data)
          ),
          axis({ type: "value", name: "%", format: short })
        ),
      table: columns(of("Target, %", "target_cpu"), of("Generator, %", "generator_cpu")),
    };

  const memory = () =>
    points.some((p) => p.target_rss || p.generator_rss) && {
      title: "Memory",
      about: "Resident.",
      time: true,
      option: () =>
        overTime(
          [
            line("target", values("target_rss", MB), "--c4"),
            line("generator", values("generator_rss", MB), "--c1"),
          ].filter((series) => any(series.data)),
          axis({ type: "value", name: "MB", format: short })
        ),
      table: columns(
        ["Target, MB", (p) => number(p.target_rss === null ? null : p.target_rss * MB, 1)],
        ["Generator, MB", (p) => number(p.generator_rss * MB, 1)]
      ),
    };

  const flight = () =>
    points.length && {
      title: "In flight and errors",
      about: "Requests sent and not answered, spans due and not sent, spans that failed.",
      time: true,
      option: () =>
        overTime(
          [
            line("in flight", values("in_flight"), "--c1"),
            line("backlog, spans", values("backlog"), "--c5", { yAxisIndex: 1 }),
            line("failed, spans", values("failed"), "--c3", { yAxisIndex: 1, areaStyle: { opacity: 0.25 } }),
          ],
          [
            axis({ type: "value", name: "requests", format: short, minInterval: 1 }),
            axis({
              type: "value",
              name: "spans",
              format: short,
              minInterval: 1,
              splitLine: { show: false },
              nameTextStyle: { color: css("--dim"), align: "right" },
            }),
          ]
        ),
      table: columns(of("In flight", "in_flight"), of("Backlog, spans", "backlog"), of("Failed, spans", "failed")),
    };

  // Where spans were lost on their way.
  const funnel = () => {
    const steps = (data.funnel || []).filter((step) => typeof step.spans === "number");
    if (!steps.length) return null;
    const name = (step) => (String(step.stage).includes(step.unit || "spans") || step.unit === "spans" ? String(step.stage) : `${step.stage}, ${step.unit}`);
    return {
      title: "Funnel",
      about: "How much of what was sent came how far, and what each stage lost.",
      option: () =>
        frame({
          tooltip: { trigger: "axis", axisPointer: { type: "shadow" } },
          grid: { left: 8, right: 70, top: 34, bottom: 8, containLabel: true },
          xAxis: axis({ type: "value", format: short }),
          yAxis: axis({ type: "category", inverse: true, data: steps.map(name), splitLine: { show: false } }),
          series: [
            {
              name: "seen",
              type: "bar",
              stack: "all",
              data: steps.map((step) => step.spans),
              color: css("--c1"),
              barMaxWidth: 34,
              label: { show: true, position: "insideLeft", color: css("--card"), formatter: (item) => number(item.value) },
            },
            {
              name: "lost",
              type: "bar",
              stack: "all",
              data: steps.map((step) => step.lost || 0),
              color: css("--c3"),
              label: { show: true, position: "right", color: css("--text"), formatter: (item) => (item.value ? `${number(item.value)} lost` : "") },
            },
          ],
        }),
      table: {
        head: ["Stage", "Seen", "Lost"],
        rows: () => steps.map((step) => [name(step), number(step.spans), number(step.lost)]),
      },
    };
  };

  const curve = () => {
    const trials = (data.trials || []).filter((trial) => trial.load_spans_per_s > 0);
    if (!trials.length) return null;
    const loads = trials.map((trial) => trial.load_spans_per_s);
    const [least, most] = [Math.min(...loads), Math.max(...loads)];
    const law = data.usl;
    const fitted = [];
    if (law) {
      const unit = Math.min(
        ...trials.filter((trial) => trial.limited_by !== "generator").map((trial) => trial.load_spans_per_s)
      );
      for (let step = 0; step <= 100; step++) {
        const load = least * (most / least) ** (step / 100);
        const n = load / unit;
        const below = 1 + law.contention * (n - 1) + law.coherency * n * (n - 1);
        const value = (law.scale * n) / below;
        if (below > 0 && Number.isFinite(value)) fitted.push([load, value]);
      }
    }
    const dots = trials.map((trial) => [trial.load_spans_per_s, trial.accepted_spans_per_s]);
    const ceiling = data.ndr
      ? {
          markLine: {
            silent: true,
            symbol: "none",
            lineStyle: { color: css("--c2"), type: "dashed" },
            label: { color: css("--text"), formatter: `no-drop rate ${number(data.ndr, 0)}`, position: "insideStartTop" },
            data: [{ yAxis: data.ndr }],
          },
        }
      : {};
    return {
      title: "Capacity",
      about: "What was accepted of what was offered, trial by trial, and the Universal Scalability Law fitted to it.",
      option: () =>
        frame({
          tooltip: { trigger: "item", formatter: (item) => `${number(item.data[0], 0)} offered<br><b>${number(item.data[1], 0)}</b> accepted` },
          xAxis: axis({ type: "log", name: "offered, spans/s", nameLocation: "middle", nameGap: 26, min: least, max: most, format: short, nameTextStyle: { color: css("--dim") } }),
          grid: { left: 8, right: 18, top: 58, bottom: 24, containLabel: true },
          yAxis: axis({ type: "log", name: "accepted, spans/s", format: short }),
          series: [
            { name: "trials", type: "scatter", data: dots, color: css("--c1"), symbolSize: 9, ...ceiling },
            line("all that is offered", [[least, least], [most, most]], "--dim", { showSymbol: false, lineStyle: { width: 1.25, type: "dashed" } }),
            ...(fitted.length ? [line("the law's fit", fitted, "--c5", { showSymbol: false, sampling: undefined })] : []),
          ],
        }),
      table: {
        head: ["Offered/s", "Accepted/s", "Lost", "Limited by"],
        rows: () =>
          trials.map((trial) => [
            number(trial.load_spans_per_s, 0),
            number(trial.accepted_spans_per_s, 0),
            `${number(100 * trial.loss_ratio)} %`,
            String(trial.limited_by),
          ]),
      },
    };
  };

  // ---- the page -----------------------------------------------------------------------------
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const tabulate = (box, table) => {
    const cells = (tag, row, more) => row.map((text, i) => element(tag, i || tag === "th" ? { ...more, class: i ? "number" : "" } : {}, text));
    box.append(
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ...cells("th", table.head, { scope: "col" }))),
        element("tbody", {}, ...table.rows().map((row) => element("tr", {}, ...cells("td", row, {}))))
      )
    );
  };
  const draw = (id, chart) => {
    const before = charts[id];
    const place = document.getElementById(`chart-${id}`);
    if (before) before.dispose();
    const made = echarts.init(place, null, { renderer: "canvas" });
    made.setOption(chart.option());
    if (chart.time) made.group = "time";
    charts[id] = made;
  };
  const walk = (id, said) => {
    let at = -1;
    return (event) => {
      const chart = charts[id];
      const option = chart.getOption();
      const count = option.series[0].data.length;
      const zoom = option.dataZoom && option.dataZoom[0];
      const steps = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -count, End: count };
      if (event.key in steps) {
        at = Math.max(0, Math.min(count - 1, at < 0 && steps[event.key] > 0 && event.key !== "End" ? 0 : at + steps[event.key]));
        chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at });
        const shown = document.getElementById(`chart-${id}`).querySelector("div:last-child");
        said.textContent = shown ? shown.innerText : "";
      } else if (event.key === "Escape") {
        at = -1;
        chart.dispatchAction({ type: "hideTip" });
        if (zoom) chart.dispatchAction({ type: "dataZoom", start: 0, end: 100 });
      } else if (zoom && (event.key === "+" || event.key === "-")) {
        const middle = at < 0 ? (zoom.start + zoom.end) / 2 : (100 * (at + 0.5)) / count;
        const half = Math.min(50, ((zoom.end - zoom.start) / 2) * (event.key === "+" ? 0.5 : 2));
        const start = Math.max(0, Math.min(100 - 2 * half, middle - half));
        chart.dispatchAction({ type: "dataZoom", start, end: start + 2 * half });
      } else {
        return;
      }
      event.preventDefault();
    };
  };

  const all = { rates, latency, percentiles, heat, cpu, memory, flight, funnel, curve };
  const shown = {};
  const grid = document.querySelector(".grid");
  for (const [id, make] of Object.entries(all)) {
    const chart = make();
    if (!chart) continue;
    shown[id] = chart;
    const place = element("div", { id: `chart-${id}`, class: "chart", tabindex: "0", role: "img", "aria-label": `${chart.title}. ${chart.about} The figures are in the table below.` });
    const said = element("div", { class: "said", "aria-live": "polite" });
    const box = element("div", { class: "scroll", tabindex: "0" });
    const details = element("details", {}, element("summary", {}, `${chart.title}: the figures as a table`), box);
    details.addEventListener("toggle", () => details.open && !box.firstChild && tabulate(box, chart.table));
    place.addEventListener("keydown", walk(id, said));
    grid.append(element("figure", {}, element("figcaption", {}, element("h3", {}, chart.title), element("p", {}, chart.about)), place, said, details));
  }
  const drawAll = () => {
    for (const [id, chart] of Object.entries(shown)) draw(id, chart);
    echarts.connect("time");
  };
  drawAll();
  if (!Object.keys(shown).length) grid.append(element("p", {}, "These results hold nothing to draw."));
  new ResizeObserver(() => Object.values(charts).forEach((chart) => chart.resize())).observe(grid);

  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "system") + 1) % 3];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
    drawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  document.getElementById("download").addEventListener("click", () => {
    // The text itself, not what was parsed: numbers past 2^53 stay what they are.
    const url = URL.createObjectURL(new Blob([source.textContent], { type: "application/json" }));
    element("a", { href: url, download: source.dataset.name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
})();
