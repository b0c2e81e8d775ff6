// When figures are drawn: those in view at once, the others one at a time and the nearest first, so that the page
// opens, scrolls and answers as quickly with many models as with few.
const waiting = new Map();
let working = null;
const FRAME_MS = 16;

// Draws into the element `id` when its turn comes; a later request for the same element replaces an earlier one.
function later(id, drawFigure) {
  if (printing) return drawFigure(); // paper does not wait
  waiting.set(byId(id), drawFigure);
  delete document.documentElement.dataset.ready;
  working ??= drawWaiting().finally(() => (working = null));
  return working;
}

async function drawWaiting() {
  const root = document.documentElement;
  while (waiting.size) {
    let node = nearest();
    if (distance(node) > 0) {
      root.dataset.shown ??= Math.round(performance.now());
      // Time for a frame and what the reader does meanwhile; hidden tabs have no animation frames to wait for.
      await new Promise((resolve) => setTimeout(resolve, FRAME_MS));
      if (!waiting.size) break;
      node = nearest();
    }
    const drawFigure = waiting.get(node);
    waiting.delete(node);
    try {
      await drawFigure();
    } catch (error) {
      console.error(error); // the others are drawn all the same
    }
  }
  root.dataset.shown ??= Math.round(performance.now());
  root.dataset.ready = "yes";
}

// Pixels between an element and the view, 0 where a part of it is seen; one that is hidden comes last.
function distance(node) {
  if (!node.offsetParent) return Infinity;
  const { top, bottom } = node.getBoundingClientRect();
  return Math.max(0, top - window.innerHeight, -bottom);
}

const nearest = () =>
  [...waiting.keys()].reduce((best, node) => (distance(node) < distance(best) ? node : best));
