// Scholars that dream in the page, one for each task's end: ask them for a digit, move the latents,
// and their solver says what it sees; or step through the tasks and watch the same dreams drift.
// Data: {tasks: [name], first: [task in which a digit is met], known: [fraction a task], sliders:
// [latent], scholars: [{mean, deviation, decoder: [layer], solver: [layer]}]}. A layer is {weight,
// scale, bias}: whole numbers of 8 bits (units x inputs), and two floats a unit. All are in base64.
{
  const { element, percent, dreamer: data } = window.genreplay;
  const digits = data.first.map((_, digit) => digit);
  const last = data.tasks.length - 1;
  const isMet = (digit, task) => data.first[digit] <= task;

  // ---------------------------------------------------------------- networks

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const floats = (text) => new Float32Array(bytes(text));

  const layer = ({ weight, scale, bias }) => ({
    weight: new Int8Array(bytes(weight)),
    scale: floats(scale),
    bias: floats(bias),
  });

  const remembered = (make) => {
    const made = [];
    return (at) => (made[at] ??= make(at));
  };

  const scholar = remembered((task) => {
    const { mean, deviation, decoder, solver } = data.scholars[task];
    return {
      mean: floats(mean),
      deviation: floats(deviation),
      decoder: decoder.map(layer),
      solver: solver.map(layer),
    };
  });
  const size = scholar(0).mean.length / digits.length; // latents

  // what a layer makes of its inputs, before the activation
  function outputs({ weight, scale, bias }, inputs) {
    return Float64Array.from(bias, (start, unit) => {
      let sum = 0;
      for (let i = 0, at = unit * inputs.length; i < inputs.length; i++, at++) {
        sum += weight[at] * inputs[i];
      }
      return start + scale[unit] * sum;
    });
  }
  const through = (layers, inputs) =>
    layers.reduce((x, each, i) => outputs(each, i ? x.map((v) => Math.max(v, 0)) : x), inputs);

  // pixels in [0, 1]: the class's prior and its code, through the decoder
  function dream(task, digit, z) {
    const { mean, deviation, decoder } = scholar(task);
    const at = digit * size;
    const code = digits.map((each) => Number(each === digit));
    const input = [...z.map((value, i) => mean[at + i] + deviation[at + i] * value), ...code];
    return through(decoder, input).map((logit) => 1 / (1 + Math.exp(-logit)));
  }

  // the solver's probability of each digit
  function answer(task, pixels) {
    const logits = through(scholar(task).solver, pixels);
    const most = Math.max(...logits);
    const shares = [...logits].map((logit) => Math.exp(logit - most));
    const sum = shares.reduce((a, b) => a + b);
    return shares.map((share) => share / sum);
  }
  const best = (shares) => shares.indexOf(Math.max(...shares));

  // numbers in [0, 1) of mulberry32
  function random(seed) {
    let state = seed;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  // the latents of a dream by its number, in tenths as the sliders go; number 0 is the most typical
  function latents(number) {
    const next = random(number);
    const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
    const tenths = () => Math.max(-30, Math.min(30, Math.floor(10 * normal() + 0.5))) / 10;
    return Array.from({ length: size }, () => (number ? tenths() : 0));
  }

  // ---------------------------------------------------------------- pieces of both figures

  const canvas = (properties = {}) => {
    const side = Math.sqrt(scholar(0).decoder.at(-1).bias.length);
    return element("canvas", { width: side, height: side, ...properties });
  };

  // in grey; held against another picture, what went is red and what came is cyan
  function paint(place, now, before = now) {
    const context = place.getContext("2d");
    const image = context.createImageData(place.width, place.height);
    now.forEach((_, i) => image.data.set([before[i], now[i], now[i], 1].map((v) => 255 * v), 4 * i));
    context.putImageData(image, 0, 0);
  }

  const button = (text, act) => {
    const made = element("button", { type: "button", className: "gr-play" }, text);
    made.addEventListener("click", act);
    return made;
  };

  const named = (digit) => `${digit === 8 ? "an" : "a"} ${digit}`;
  const task = (at) => `task ${at + 1} (digits ${data.tasks[at]})`;

  // one of several, as buttons in a row
  function chooser(legend, name, names, chosen, choose) {
    const inputs = names.map((_, value) => element("input", { type: "radio", name, value }));
    inputs[chosen].checked = true;
    inputs.forEach((input, i) => input.addEventListener("change", () => choose(i)));
    const labels = inputs.map((input, i) =>
      element("label", {}, input, element("span", {}, names[i])),
    );
    const row = element("div", { className: "gr-options" }, ...labels);
    const box = element("fieldset", { className: "gr-choices" }, element("legend", {}, legend), row);
    return { box, inputs };
  }

  // ---------------------------------------------------------------- ask for a dream

  function bars() {
    const rows = digits.map((digit) => {
      const bar = element("span", { className: "gr-bar" });
      const value = element("span", { className: "gr-value" });
      const label = element("span", { className: "gr-label" }, digit);
      const track = element("span", { className: "gr-track" }, bar);
      return { row: element("div", { className: "gr-row gr-short" }, label, track, value), bar, value };
    });
    const title = element("p", { className: "gr-title" }, "What its solver sees");
    const box = element("div", {}, title, ...rows.map((each) => each.row));
    function show(shares, at) {
      rows.forEach(({ row, bar, value }, digit) => {
        const known = isMet(digit, at) ? "past" : "future";
        row.dataset.when = digit === best(shares) ? "now" : known;
        bar.style.width = percent(shares[digit], 2).replace(" ", "");
        value.textContent = percent(shares[digit]);
      });
    }
    return { box, show };
  }

  function slider(latent, moved) {
    const name = `latent ${latent + 1}`;
    const input = element("input", { type: "range", min: -3, max: 3, step: 0.1 });
    const value = element("span", { className: "gr-value" });
    input.addEventListener("input", () => moved(Number(input.value)));
    const label = element("span", { className: "gr-label" }, name);
    const row = element("label", { className: "gr-row gr-slider" }, label, input, value);
    function show(z) {
      input.value = z;
      value.textContent = z.toFixed(1).replace("-", "\u2212");
    }
    return { row, show };
  }

  // what is said of a dream
  function told({ at, digit }, shares) {
    const seen = best(shares);
    const asked = isMet(digit, at) ? named(digit) : `${named(digit)}, which it hasn't met yet`;
    const read = `${named(seen)}${seen === digit ? ", too" : ""} (${percent(shares[seen])})`;
    return `Asked for ${asked}. Its solver sees ${read.replace(" %", "\u00a0%")}.`;
  }

  const known = (at) =>
    `This solver reads ${percent(data.known[at])} of the test images of the digits that it has met.`;

  const titled = ({ number, moved }) =>
    `${number ? `Dream ${number}` : "The most typical dream"}${moved ? ", moved" : ""}: ` +
    `the ${data.sliders.length} of ${size} latents that change most`;

  // say which digits were met when the scholar was frozen
  function mark(inputs, at) {
    inputs.forEach((input, digit) => {
      input.dataset.met = isMet(digit, at);
      input.ariaLabel = isMet(digit, at) ? `${digit}` : `${digit}, not met yet`;
    });
  }

  function asking(host) {
    const state = { at: last, digit: 3, number: 1, z: latents(1), moved: false };
    const picture = canvas({ className: "gr-dream", role: "img" });
    const said = element("output", { className: "gr-said" });
    const which = element("legend");
    const total = element("p", { className: "gr-total" });
    const seen = bars();

    const frozen = chooser("Freeze the scholar after digits", "gr-frozen", data.tasks, last, (at) =>
      show({ at }),
    );
    const asked = chooser("and ask it to dream a", "gr-asked", digits, state.digit, (digit) =>
      show({ digit }),
    );
    const sliders = data.sliders.map((latent) =>
      slider(latent, (value) => show({ z: state.z.with(latent, value), moved: true })),
    );
    const draw = (number) => show({ number, z: latents(number), moved: false });
    const another = button("Another dream", () => draw(state.number + 1));
    const typical = button("The most typical", () => draw(0));

    function show(changed) {
      Object.assign(state, changed);
      const { at, digit, z } = state;
      const pixels = dream(at, digit, z);
      const shares = answer(at, pixels);
      paint(picture, pixels);
      picture.ariaLabel = `A dream of ${named(digit)}, after ${task(at)}`;
      seen.show(shares, at);
      said.textContent = told(state, shares);
      which.textContent = titled(state);
      total.textContent = known(at);
      sliders.forEach((each, i) => each.show(z[data.sliders[i]]));
      mark(asked.inputs, at);
    }

    const rows = element("div", { className: "gr-panels" }, ...sliders.map((each) => each.row));
    const moving = element("fieldset", { className: "gr-choices" }, which, rows);
    const drawing = element("div", { className: "gr-controls" }, another, typical);
    const view = element("div", { className: "gr-view" }, picture, seen.box);
    host.replaceChildren(frozen.box, asked.box, said, view, drawing, moving, total);
    show({});
  }

  // ---------------------------------------------------------------- watch dreams drift

  const EACH = 3; // dreams of each digit
  const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;

  // dreams of all digits, three of each, from that number on: task -> [{digit, pixels, read}], with
  // no pixels for digits that weren't met
  const gallery = (from) =>
    remembered((at) =>
      Array.from({ length: EACH }, (_, i) => latents(from + i)).flatMap((z) =>
        digits.map((digit) => {
          if (!isMet(digit, at)) return { digit };
          const pixels = dream(at, digit, z);
          return { digit, pixels, read: best(answer(at, pixels)) };
        }),
      ),
    );

  // and as they were when first dreamt
  const firsts = (hung, at) =>
    hung(at).map(({ digit, pixels }, i) => pixels && hung(data.first[digit])[i].pixels);

  function summary(at, dreams, before) {
    const met = dreams.filter((each) => each.pixels).length;
    const right = dreams.filter((each) => each.read === each.digit).length;
    const moved = dreams.flatMap(({ pixels }, i) =>
      pixels ? [...pixels].map((value, p) => Math.abs(value - before[i][p])) : [],
    );
    return (
      `After ${task(at)}: its solver reads ${right} of ${met} dreams as the digit asked for. ` +
      `Since they were first dreamt, a pixel has changed by ${mean(moved).toFixed(3)} on average.`
    );
  }

  function hang({ dataset, firstChild }, { digit, pixels, read }, before) {
    dataset.met = Boolean(pixels);
    dataset.read = pixels && read !== digit ? read : "";
    if (pixels) paint(firstChild, pixels, before);
  }

  function drifting(host) {
    const places = Array.from({ length: EACH * digits.length }, () =>
      element("span", { className: "gr-cell" }, canvas()),
    );
    const heads = digits.map((digit) => element("span", { className: "gr-head" }, digit));
    const grid = element("div", { className: "gr-gallery", role: "img" }, ...heads, ...places);
    const slider = element("input", { type: "range", min: 0, max: last, ariaLabel: "task" });
    const said = element("output", { className: "gr-said" });
    const coloured = element("input", { type: "checkbox" });
    const state = { at: last, from: 1, hung: gallery(1) };

    function show(changed) {
      Object.assign(state, changed);
      const { at, hung } = state;
      const before = firsts(hung, at);
      slider.value = at;
      slider.ariaValueText = task(at);
      said.textContent = summary(at, hung(at), before);
      grid.ariaLabel = `Three dreams of each digit met, after ${task(at)}`;
      hung(at).forEach((each, i) =>
        hang(places[i], each, coloured.checked ? before[i] : each.pixels),
      );
    }
    const step = (by) => show({ at: Math.max(0, Math.min(last, state.at + by)) });
    const draw = (from) => show({ from, hung: gallery(from) });
    const earlier = button("Earlier", () => step(-1));
    const later = button("Later", () => step(1));
    const others = button("Other dreams", () => draw(state.from + EACH));
    slider.addEventListener("input", () => show({ at: Number(slider.value) }));
    coloured.addEventListener("change", () => show({}));
    host.addEventListener("keydown", ({ key, target }) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (by && target !== slider) step(by);
    });

    const colour = " colour what has changed since it was first dreamt: red went, cyan came";
    const check = element("label", { className: "gr-check" }, coloured, colour);
    const controls = element("div", { className: "gr-controls" }, earlier, slider, later);
    host.replaceChildren(controls, said, grid, check, others);
    show({});
  }

  const figures = { ask: asking, drift: drifting };
  document.querySelectorAll('[data-interactive="dreamer"]').forEach((host) => {
    host.classList.add("gr-figure");
    figures[host.dataset.part](host);
  });
  document.querySelector("#dreams").classList.add("gr-print");
}
