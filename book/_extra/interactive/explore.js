// All stored results: choose a study, see its rows with their intervals, and a run's accuracy matrix.
// Data: [{study, title, question, command, rows: [{name, mean, low, high, runs: [{seed,
// average_accuracy, accuracy_matrix, tasks, every, of}]}]}], accuracies as fractions. Of a long stream
// of so many tasks a matrix holds every fifth, say.
{
  const { element, percent, explore: studies } = window.genreplay;

  function choice(label, names, chosen) {
    const options = names.map((name, value) => element("option", { value }, name));
    const select = element("select", {}, ...options);
    select.addEventListener("change", () => chosen(Number(select.value)));
    return element("label", { className: "gr-choice" }, `${label} `, select);
  }

  // the axis of a study's intervals: a whole number of tens of percent
  function axis(rows) {
    const values = rows.flatMap((row) => [
      row.low ?? row.mean,
      row.high ?? row.mean,
      ...row.runs.map((run) => run.average_accuracy),
    ]);
    const low = Math.max(0, Math.floor(10 * Math.min(...values)) / 10);
    const high = Math.min(1, Math.ceil(10 * Math.max(...values)) / 10);
    return (x) => `${(100 * (Math.min(Math.max(x, low), high) - low)) / (high - low || 1)}%`;
  }

  function drawing(row, at) {
    const track = element("span", { className: "gr-track gr-thin" });
    if (row.low !== null) {
      const reach = element("span", { className: "gr-reach" });
      reach.style.left = at(row.low);
      reach.style.right = `calc(100% - ${at(row.high)})`;
      track.append(reach);
    }
    row.runs.forEach((run) => {
      const dot = element("span", { className: "gr-dot" });
      dot.style.left = at(run.average_accuracy);
      track.append(dot);
    });
    return track;
  }

  function rowsOf(study, look) {
    const at = axis(study.rows);
    const head = ["setting", "seeds", "accuracy", "95 % interval"];
    const table = element("table", { className: "gr-rows" });
    table.createTHead().append(element("tr", {}, ...head.map((h) => element("th", { scope: "col" }, h))));
    const body = table.createTBody();
    study.rows.forEach((row, i) => {
      const reach = row.low === null ? "" : `${percent(row.low)} to ${percent(row.high)}`;
      const open = element("button", { type: "button", className: "gr-link" }, row.name);
      open.addEventListener("click", () => look(i));
      const setting = element("td", {}, open, drawing(row, at));
      const cells = [row.runs.length, percent(row.mean), reach];
      body.append(element("tr", {}, setting, ...cells.map((cell) => element("td", {}, cell))));
    });
    return table;
  }

  function matrixOf(run, said) {
    const table = element("table", { className: "gr-matrix" });
    const corner = element("th", { scope: "col" }, "after");
    const heads = run.tasks.map((name) => element("th", { scope: "col" }, name));
    table.createTHead().append(element("tr", {}, corner, ...heads));
    const body = table.createTBody();
    run.accuracy_matrix.forEach((row, i) => {
      const learned = i * run.every;
      const name = i ? `task ${learned}` : "nothing";
      const line = element("tr", {}, element("th", { scope: "row" }, name));
      row.forEach((value, j) => {
        const cell = element("td", { tabIndex: i + j ? -1 : 0 }, (100 * value).toFixed(0));
        cell.style.setProperty("--gr-share", value);
        cell.dataset.strong = value > 0.55;
        cell.dataset.at = `${i},${j}`;
        cell.dataset.said =
          `After ${i ? `learning ${learned} of ${run.of} tasks` : "nothing"}, ` +
          `${percent(value)} of task ${j * run.every + 1} (${run.tasks[j]}) is read rightly.`;
        line.append(cell);
      });
      body.append(line);
    });
    const tell = (event) => {
      if (event.target.dataset.said) said.textContent = event.target.dataset.said;
    };
    table.addEventListener("focusin", tell);
    table.addEventListener("pointerover", tell);
    table.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const from = event.target.dataset.at?.split(",").map(Number);
      if (!from || !step[event.key]) return;
      const to = from.map((place, axis) => place + step[event.key][axis]).join(",");
      table.querySelector(`[data-at="${to}"]`)?.focus();
      event.preventDefault();
    });
    return table;
  }

  function figure(host) {
    const rows = element("div", { className: "gr-wide" });
    const run = element("div", { className: "gr-wide" });
    const told = element("p", { className: "gr-question" });
    const command = element("code");

    function look(study, i) {
      const row = study.rows[i];
      const said = element("output", { className: "gr-said" }, "Hover, tap or use the arrow keys.");
      const place = element("div");
      const show = (at) => place.replaceChildren(matrixOf(row.runs[at], said));
      const seeds = choice("seed", row.runs.map((each) => each.seed), show);
      show(0);
      const title = element("p", { className: "gr-title" }, row.name);
      run.replaceChildren(title, seeds, place, said);
    }
    function open(i) {
      const study = studies[i];
      told.textContent = study.question;
      command.textContent = study.command;
      rows.replaceChildren(rowsOf(study, (at) => look(study, at)));
      look(study, 0);
    }
    const select = choice("study", studies.map((study) => study.title), open);
    const again = element("p", { className: "gr-wide" }, "To make it again: ", command);
    const first = studies.findIndex((study) => study.study === "best"); // several seeds in each row
    host.replaceChildren(select, told, rows, run, again);
    host.classList.add("gr-figure");
    select.querySelector("select").value = first;
    open(first);
  }

  document.querySelectorAll('[data-interactive="explore"]').forEach(figure);
}
