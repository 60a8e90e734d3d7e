// What the figures share.
window.genreplay ??= {};

window.genreplay.element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

window.genreplay.percent = (x, digits = 1) => `${(100 * x).toFixed(digits)} %`;
