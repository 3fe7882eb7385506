"""A fake FoundationPose that behaves, and misbehaves, like the real one."""

import os
import random
import time

import numpy as np
import torch
from learning.training.predict_pose_refine import PoseRefinePredictor

STEP_M = 0.01  # it believes that the object moves so far along the camera's x per frame


class FoundationPose:
    def __init__(self, model_pts, model_normals, symmetry_tfs=None, mesh=None, scorer=None, refiner=None, glctx=None,
                 debug=0, debug_dir='/home/bowen/debug'):
        print('chatter on stdout that must not reach the message pipe')
        assert isinstance(refiner, PoseRefinePredictor) and scorer is not None and glctx is not None
        assert os.path.isdir(debug_dir)
        assert model_pts.shape == model_normals.shape
        self.centre = (np.asarray(model_pts).max(0) + np.asarray(model_pts).min(0)) / 2
        self.scorer, self.pose_last = scorer, None

    def get_tf_to_centered_mesh(self):
        tf = np.eye(4, dtype=np.float32)
        tf[:3, 3] = -self.centre
        return torch.Tensor(tf)

    def _out(self):
        centred = self.pose_last.cpu().numpy().reshape(4, 4)
        return centred @ self.get_tf_to_centered_mesh().cpu().numpy()

    def track_one(self, rgb, depth, K, iteration, extra=None):
        if self.pose_last is None:
            raise RuntimeError('pose_last is None')
        assert self.pose_last.shape == (1, 4, 4)
        assert rgb.dtype == np.uint8 and depth.dtype == np.float32
        # The warm-up frame is flat grey; faults are for real frames.
        if not (rgb == 128).all():
            self._misbehave()
        last = self.pose_last.cpu().numpy().copy()
        last[0, 0, 3] += STEP_M
        self.pose_last = torch.as_tensor(last, dtype=torch.float32, device='cuda')
        out = self._out()
        return out * np.nan if os.environ.get('FAKE_FP_FAULT') == 'nan' and not (rgb == 128).all() else out

    @staticmethod
    def _misbehave():
        fault = os.environ.get('FAKE_FP_FAULT')
        if fault == 'hang':
            time.sleep(60)
        if fault == 'crash':
            print('CUDA error: an illegal memory access was encountered', flush=True)
            os._exit(134)
        if fault == 'raise':
            raise RuntimeError('cuda out of memory')

    def register(self, K, rgb, depth, ob_mask, ob_id=None, glctx=None, iteration=5):
        random.seed(0)
        np.random.seed(0)
        assert type(self.scorer).__name__ == 'ScorePredictor'
        if (ob_mask & (depth > 0.001)).sum() < 4:
            return np.eye(4)
        v, u = np.nonzero(ob_mask)
        z = float(np.median(depth[ob_mask & (depth > 0.001)]))
        last = np.eye(4, dtype=np.float32)
        last[:3, 3] = (u.mean() - K[0, 2]) / K[0, 0] * z, (v.mean() - K[1, 2]) / K[1, 1] * z, z
        self.pose_last = torch.as_tensor(last.reshape(1, 4, 4), dtype=torch.float32, device='cuda')
        return self._out()
