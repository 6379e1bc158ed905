// What both canvases of the page need.

// Clears a canvas and makes it as sharp as the screen: its size, in pixels of the screen,
// is that of its place in the page. Returns the screen's pixels for one of the page.
export function clear(canvas, context) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  context.scale(ratio, ratio);
  return ratio;
}
