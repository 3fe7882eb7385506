"""A predicted video as points that can be turned in the page itself: a canvas and a few lines of script, no library.

Drawn on the processor with a depth buffer of its own: the same picture in every browser, offline, without a GPU.
"""

from __future__ import annotations

import base64
import json
from html import escape

import numpy as np

from geo4d_ros.types import Video4D

POINTS = 6500  # per frame, about: more would make the page heavy
FAR = 4.0  # [m] from the reference camera; what lies behind it is left out
WIDTH, HEIGHT = 480, 360  # [px]

SCRIPT = """
document.querySelectorAll('figure.cloud').forEach(box => {
  const canvas = box.querySelector('canvas'), slider = box.querySelector('input');
  const {counts, centre, focal, size, path} = JSON.parse(box.dataset.scene);
  const bytes = Uint8Array.from(atob(box.dataset.points), c => c.charCodeAt(0));
  const total = counts.reduce((a, b) => a + b, 0);
  const xyz = new Int16Array(bytes.buffer, 0, 3 * total), rgb = bytes.subarray(6 * total);
  const w = canvas.width, h = canvas.height, context = canvas.getContext('2d');
  let yaw = 0, pitch = 0, zoom = 1, held = null;
  function project(x, y, z) {  // [mm], optical frame: x right, y down, z forward; turned about the centre
    const [cx, cy, cz] = centre, [a, b, c, d] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const u = a * (x - cx) + b * (z - cz), v = a * (z - cz) - b * (x - cx);
    const s = c * (y - cy) - d * v, t = c * v + d * (y - cy) + cz;
    const f = focal * zoom / t;
    return [w / 2 + u * f, h / 2 + s * f, t, f];
  }
  function draw() {
    const frame = +slider.value, image = context.createImageData(w, h), near = new Float32Array(w * h).fill(1e9);
    const start = counts.slice(0, frame).reduce((a, b) => a + b, 0);
    for (let i = 3 * start; i < 3 * (start + counts[frame]); i += 3) {
      const [x, y, t, f] = project(xyz[i], xyz[i + 1], xyz[i + 2]);
      if (t < 50) continue;
      const r = Math.min(14, Math.max(1, Math.ceil(size * xyz[i + 2] * f)));  // as wide as its pixel is there
      for (let row = Math.round(y - r / 2); row < y + r / 2; row++)
        for (let column = Math.round(x - r / 2); column < x + r / 2; column++) {
          const at = row * w + column;
          if (row < 0 || row >= h || column < 0 || column >= w || near[at] <= t) continue;
          near[at] = t;
          image.data.set([rgb[i], rgb[i + 1], rgb[i + 2], 255], 4 * at);
        }
    }
    context.putImageData(image, 0, 0);
    context.lineWidth = 2;
    path.slice(1).forEach((end, k) => {
      const [from, to] = [project(...path[k]), project(...end)];
      context.strokeStyle = k < frame ? '#e08a1e' : '#1f5fa8';
      context.beginPath(); context.moveTo(from[0], from[1]); context.lineTo(to[0], to[1]); context.stroke();
    });
    box.querySelector('output').textContent = 'frame ' + frame;
    box.dataset.drawn = near.reduce((n, t) => n + (t < 1e9), 0);
  }
  function turn(dx, dy) { yaw -= dx; pitch = Math.max(-1.5, Math.min(1.5, pitch + dy)); draw(); }
  canvas.onpointerdown = e => { held = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); };
  canvas.onpointerup = () => { held = null; };
  canvas.onpointermove = e => {
    if (held === null) return;
    turn((e.clientX - held[0]) / 200, (e.clientY - held[1]) / 200);
    held = [e.clientX, e.clientY];
  };
  canvas.onwheel = e => { zoom *= Math.exp(-e.deltaY / 800); e.preventDefault(); draw(); };
  canvas.onkeydown = e => {
    const step = {ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, -.1], ArrowDown: [0, .1]}[e.key];
    if (step) { e.preventDefault(); turn(...step); }
  };
  slider.oninput = draw;
  draw();
});
"""


def cloud_figure(video: Video4D, caption: str) -> str:
    """The figure's HTML; `SCRIPT` has to stand once at the end of its page. Where there is a state stream, the
    predicted path of the gripper is drawn too.
    """
    views, frames, height, width = video.valid.shape
    step = max(1, int(np.ceil(np.sqrt(views * height * width / POINTS))))
    points, rgb = video.points[:, :, ::step, ::step], video.rgb[:, :, ::step, ::step]
    shown = video.valid[:, :, ::step, ::step] & (points[..., 2] < FAR) & (np.abs(points) < 32.0).all(-1)
    counts = [int(shown[:, k].sum()) for k in range(frames)]
    millimetres = [np.rint(points[:, k][shown[:, k]] * 1e3).astype('<i2') for k in range(frames)]
    colours = [rgb[:, k][shown[:, k]] for k in range(frames)]
    first = millimetres[0] if counts[0] else np.array([[0, 0, 1000]])
    centre = np.median(first, axis=0)
    focal = float(video.K[0, 0, 0]) * WIDTH / width
    path = [] if video.state is None else np.rint(video.state.T_ref_gripper[:, :3, 3] * 1e3).astype(int).tolist()
    scene = {'counts': counts, 'centre': [int(c) for c in centre[:2]] + [max(1, int(centre[2]))], 'focal': focal,
             'size': step / float(video.K[0, 0, 0]), 'path': path}
    data = base64.b64encode(np.concatenate(millimetres).tobytes() + np.concatenate(colours).tobytes()).decode()
    return (f'<figure class="cloud" data-scene="{escape(json.dumps(scene))}" data-points="{data}">'
            f'<canvas width="{WIDTH}" height="{HEIGHT}" tabindex="0" role="img" aria-label="{escape(caption)}">'
            '</canvas>'
            f'<div><input type="range" min="0" max="{frames - 1}" value="0" aria-label="frame"> <output></output></div>'
            f'<figcaption>{escape(caption)}</figcaption></figure>')
