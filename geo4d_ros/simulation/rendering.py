"""Headless RGB-D and label images of a MuJoCo scene from any camera pose, colour and depth in one pass."""

from __future__ import annotations

import importlib
import os

import mujoco
import numpy as np

from geo4d_ros.errors import SimulationError, require
from geo4d_ros.geometry.cameras import Camera
from geo4d_ros.simulation.scene import LABELS, geom_labels

GRIPPER_LABELS = (LABELS['hand'], LABELS['left_finger'], LABELS['right_finger'])
NEAR_M, FAR_M = 0.05, 10.0


class RgbdRenderer:
    """Renders one model at one size; classic MuJoCo renderer, no multisampling (it would corrupt depth).

    Use it from one thread at a time. `close()` (or `with`) frees the GL objects; an unclosed renderer
    makes later ones on the same thread unreliable.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int, shadows: bool = False) -> None:
        """Raise SimulationError where no headless GL is to be had."""
        require(height >= 2 and width >= 2, f'image size should be at least 2x2 but got {height}x{width}')
        self.height, self.width = height, width
        self._model = model
        self._labels = geom_labels(model)
        self._context = None
        try:
            self._gl = _gl_context(width, height)
        except (AttributeError, RuntimeError, ImportError, TypeError) as error:
            raise SimulationError(
                f'no headless OpenGL ({error}); install libegl1 libgl1 libgl1-mesa-dri and set MUJOCO_GL=egl'
            ) from error
        self._gl.make_current()
        self._context = _offscreen_context(model, height, width)
        self._scene = mujoco.MjvScene(model, maxgeom=max(1000, 2 * model.ngeom))
        self._flags(mujoco.mjtRndFlag.mjRND_SHADOW, shadows)
        self._flags(mujoco.mjtRndFlag.mjRND_REFLECTION, False)
        self._flags(mujoco.mjtRndFlag.mjRND_HAZE, False)
        self._option = mujoco.MjvOption()
        self._free_camera = mujoco.MjvCamera()
        self._viewport = mujoco.MjrRect(0, 0, width, height)

    def __enter__(self) -> RgbdRenderer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the GL objects, in the order drivers need; safe to call twice."""
        if self._context is None:
            return
        self._gl.make_current()
        self._context.free()
        self._context = None
        self._gl.free()

    def render(
        self, data: mujoco.MjData, camera: Camera, labels: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """rgb (H, W, 3) uint8, depth (H, W) float32 [m] along the optical axis (0 = nothing within
        10 m), and with `labels` the classes (H, W) uint8 of LABELS, else None. `data` must be
        forwarded (as after mj_step); `camera` is posed in the base frame, which is the world."""
        return self.render_many(data, (camera,), labels)[0]

    def render_many(
        self, data: mujoco.MjData, cameras: tuple[Camera, ...] | list[Camera], labels: bool = False
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """As `render` for several cameras of one moment; cheaper, the scene is gathered once."""
        require(self._context is not None, 'this renderer is closed; make a new one', SimulationError)
        self._gl.make_current()
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._free_camera,
                               mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        return [self._render(camera, labels) for camera in cameras]

    def _render(self, camera: Camera, labels: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        require((camera.height, camera.width) == (self.height, self.width),
                f'camera should be {self.height}x{self.width} but is {camera.height}x{camera.width}')
        for eye in self._scene.camera:
            _aim(eye, camera)
        rgb = np.empty((self.height, self.width, 3), np.uint8)
        buffer = np.empty((self.height, self.width), np.float32)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(rgb, buffer, self._viewport, self._context)
        depth = NEAR_M * FAR_M / (buffer * (FAR_M - NEAR_M) + NEAR_M)
        depth = np.where(buffer > 0, depth, 0).astype(np.float32)
        classes = self._render_labels() if labels else None
        return np.ascontiguousarray(rgb[::-1]), np.ascontiguousarray(depth[::-1]), classes

    def _render_labels(self) -> np.ndarray:
        self._flags(mujoco.mjtRndFlag.mjRND_SEGMENT, True)
        self._flags(mujoco.mjtRndFlag.mjRND_IDCOLOR, True)
        colour = np.empty((self.height, self.width, 3), np.uint8)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(colour, None, self._viewport, self._context)
        self._flags(mujoco.mjtRndFlag.mjRND_SEGMENT, False)
        self._flags(mujoco.mjtRndFlag.mjRND_IDCOLOR, False)
        segment = colour.astype(np.int32) @ np.array([1, 256, 65536], np.int32)  # 0 is the background
        table = np.zeros(self._scene.ngeom + 1, np.uint8)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.segid >= 0:
                table[geom.segid + 1] = self._labels[geom.objid]
        return np.ascontiguousarray(table[segment][::-1])

    def _flags(self, flag: mujoco.mjtRndFlag, on: bool) -> None:
        self._scene.flags[flag] = on


def _gl_context(width: int, height: int) -> object:
    """EGL, or what MUJOCO_GL names; loaded here so that the order of imports does not matter."""
    backend = os.environ.setdefault('MUJOCO_GL', 'egl')
    require(backend in ('egl', 'osmesa', 'glfw'),
            f'MUJOCO_GL should be egl, osmesa or glfw but is {backend!r}', SimulationError)
    return importlib.import_module(f'mujoco.{backend}').GLContext(width, height)


def _offscreen_context(model: mujoco.MjModel, height: int, width: int) -> mujoco.MjrContext:
    """A context whose buffer fits the image, without multisampling; the model's own settings are restored."""
    visual, quality = model.vis.global_, model.vis.quality
    before = visual.offwidth, visual.offheight, quality.offsamples, quality.shadowsize
    visual.offwidth, visual.offheight = max(width, 64), max(height, 64)
    quality.offsamples, quality.shadowsize = 0, min(quality.shadowsize, 1024)
    try:
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    finally:
        visual.offwidth, visual.offheight, quality.offsamples, quality.shadowsize = before
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
    context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
    return context


def _aim(eye: mujoco.MjvGLCamera, camera: Camera) -> None:
    """Give a GL camera the pose and the (possibly off-centre) frustum of a pinhole camera."""
    K, T = camera.K, camera.T_base_camera
    left = -(K[0, 2] + 0.5) / K[0, 0] * NEAR_M
    right = (camera.width - 0.5 - K[0, 2]) / K[0, 0] * NEAR_M
    eye.pos, eye.forward, eye.up = T[:3, 3], T[:3, 2], -T[:3, 1]
    eye.orthographic = 0
    eye.frustum_near, eye.frustum_far = NEAR_M, FAR_M
    eye.frustum_center, eye.frustum_width = (left + right) / 2, (right - left) / 2
    eye.frustum_top = (K[1, 2] + 0.5) / K[1, 1] * NEAR_M
    eye.frustum_bottom = -(camera.height - 0.5 - K[1, 2]) / K[1, 1] * NEAR_M
