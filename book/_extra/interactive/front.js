// The front page's figure: what two networks know of each task while they learn, step by step.
// Data: {tasks: [name], steps: [n], now: [task at that step], known: {network: [[fraction] a step]}}
{
  const { element, percent, front: data } = window.genreplay;
  const last = data.steps.length - 1;
  const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;

  function panel(name) {
    const rows = data.tasks.map((digits) => {
      const bar = element("span", { className: "gr-bar" });
      const value = element("span", { className: "gr-value" });
      const label = element("span", { className: "gr-label" }, `digits ${digits}`);
      const row = element("div", { className: "gr-row" }, label);
      row.append(element("span", { className: "gr-track" }, bar), value);
      return { row, bar, value };
    });
    const total = element("p", { className: "gr-total" });
    const title = element("p", { className: "gr-title" }, `This one ${name}`);
    const box = element("div", { className: "gr-panel" }, title, ...rows.map((r) => r.row), total);
    function show(at) {
      data.known[name][at].forEach((known, task) => {
        const { row, bar, value } = rows[task];
        row.dataset.when = ["past", "now", "future"][Math.sign(task - data.now[at]) + 1];
        bar.style.width = `${100 * known}%`;
        value.textContent = task > data.now[at] ? "not met" : percent(known, 0);
      });
      total.textContent = `reads ${percent(mean(data.known[name][at]), 0)} of all ten digits`;
    }
    return { box, show };
  }

  function figure(cell) {
    const panels = Object.keys(data.known).map(panel);
    const slider = element("input", { type: "range", min: 0, max: last, value: last });
    const said = element("output", { className: "gr-said" });
    const play = element("button", { type: "button", className: "gr-play" }, "Play");
    slider.setAttribute("aria-label", "training step");
    let timer = 0;

    function show(at) {
      slider.value = at;
      const what = `step ${data.steps[at]}: learning digits ${data.tasks[data.now[at]]}`;
      slider.setAttribute("aria-valuetext", what);
      said.textContent = what;
      panels.forEach((each) => each.show(at));
    }
    function stop() {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    }
    function start() {
      let at = Number(slider.value) === last ? 0 : Number(slider.value);
      play.textContent = "Pause";
      show(at);
      timer = setInterval(() => (at < last ? show(++at) : stop()), 250);
    }
    play.addEventListener("click", () => (timer ? stop() : start()));
    slider.addEventListener("input", () => {
      stop();
      show(Number(slider.value));
    });
    show(last);
    const controls = element("div", { className: "gr-controls" }, play, slider, said);
    const both = element("div", { className: "gr-panels" }, ...panels.map((each) => each.box));
    const made = element("div", { className: "gr-figure", id: "front-figure" }, controls, both);
    const picture = cell.querySelector(".cell_output");
    picture.classList.add("gr-print");
    cell.append(made);
  }

  document.querySelectorAll(".tag_interactive-front").forEach(figure);
}
