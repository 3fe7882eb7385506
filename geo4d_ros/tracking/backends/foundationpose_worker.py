"""The FoundationPose process: started by the user's own interpreter, speaks length-prefixed npz on its pipes.

Runs alone (numpy and the standard library; no import of this package), on Python 3.8 or newer. It holds the only
`import estimater`: that source tree has top-level module names and star imports, changes torch's default tensor type
and the random seeds, and its licence is non-commercial, so none of it enters the tracker's process.

Requests (key `op`): hello {root, vertices, faces, debug_dir} -> {device}; start {object, T}; step {object, rgb,
depth, K, iterations} -> {T}; register {object, rgb, depth, mask, K, iterations} -> {T}; quit. Replies carry `ok`,
or `error` and `kind` ('unavailable' or 'runtime'). T is T_camera_gripper, OpenCV, metres.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys

import numpy as np

MAGIC = b'G4DF'
MAX_BYTES = 512 * 1024 * 1024


def write_message(stream, fields, arrays=None):
    """Write one message: a JSON object of plain `fields` and named numpy `arrays`."""
    buffer = io.BytesIO()
    header = np.frombuffer(json.dumps(fields).encode(), np.uint8)
    np.savez(buffer, header=header, **(arrays or {}))
    data = buffer.getvalue()
    stream.write(MAGIC + struct.pack('<Q', len(data)) + data)
    stream.flush()


def parse_size(prefix):
    """Length of the body that follows a 12-byte prefix. Raises ValueError on anything else."""
    if len(prefix) != 12 or prefix[:4] != MAGIC:
        raise ValueError('not a message of the FoundationPose worker')
    size = struct.unpack('<Q', prefix[4:])[0]
    if size > MAX_BYTES:
        raise ValueError(f'message of {size} bytes is too large')
    return size


def parse_body(data):
    """Fields and arrays of a message body. Raises ValueError when it is damaged."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(arrays.pop('header').tobytes().decode()), arrays


def read_message(stream):
    """One message (blocking), or None at the end of the stream."""
    prefix = stream.read(12)
    if not prefix:
        return None
    return parse_body(stream.read(parse_size(prefix)))


class Unavailable(Exception):
    """FoundationPose cannot run here."""


class Worker:
    """One estimator for the mesh; each tracked object (a view) keeps its own last pose."""

    def __init__(self):
        self.estimator = self.torch = None
        self.last = {}
        self.real_scorer = False

    def hello(self, fields, arrays):
        """Import everything and build the estimator without registering anything."""
        root = fields['root']
        sys.path.insert(0, root)
        try:
            import torch

            if not torch.cuda.is_available():
                raise Unavailable('torch.cuda.is_available() is False in this interpreter: it needs a CUDA GPU')
            import nvdiffrast.torch as rasteriser
            import trimesh
            from estimater import FoundationPose
            from learning.training.predict_pose_refine import PoseRefinePredictor
        except ImportError as error:
            raise Unavailable(f'import failed: {error}; install the requirements of FoundationPose') from error
        self.torch = torch
        mesh = trimesh.Trimesh(arrays['vertices'], arrays['faces'], process=False)
        os.makedirs(fields['debug_dir'], exist_ok=True)
        # A stub scorer: scoring is only needed to register, and loads half of the weights.
        self.estimator = FoundationPose(
            model_pts=np.asarray(mesh.vertices), model_normals=np.asarray(mesh.vertex_normals), mesh=mesh,
            scorer=object(), refiner=PoseRefinePredictor(), glctx=rasteriser.RasterizeCudaContext(), debug=0,
            debug_dir=fields['debug_dir'])
        self._warm_up()
        return {'device': str(torch.cuda.get_device_name(0))}, {}

    def _warm_up(self):
        """The first call compiles kernels and takes seconds: spend them here, outside any deadline."""
        pose = np.eye(4)
        pose[2, 3] = 0.8
        self._set_last(pose)
        K = np.array([[130.0, 0, 63.5], [0, 130.0, 47.5], [0, 0, 1]])
        grey, flat = np.full((96, 128, 3), 128, np.uint8), np.full((96, 128), 0.8, np.float32)
        self.estimator.track_one(rgb=grey, depth=flat, K=K, iteration=1)
        self.last.clear()

    def _centred(self):
        return np.asarray(self.estimator.get_tf_to_centered_mesh().cpu().numpy(), np.float64).reshape(4, 4)

    def _set_last(self, T):
        last = T @ np.linalg.inv(self._centred())
        self.estimator.pose_last = self.torch.as_tensor(last.reshape(1, 4, 4), dtype=self.torch.float32, device='cuda')

    def start(self, fields, arrays):
        """Seed an object's pose from kinematics: no registration, no symmetry flip."""
        self.last[fields['object']] = np.asarray(arrays['T'], np.float64)
        return {}, {}

    def step(self, fields, arrays):
        """Refine an object's last pose on the next frame."""
        self._set_last(self.last[fields['object']])
        T = self.estimator.track_one(rgb=arrays['rgb'], depth=arrays['depth'], K=arrays['K'],
                                     iteration=fields['iterations'])
        return self._accept(fields['object'], T)

    def register(self, fields, arrays):
        """Find an object anew; on a nearly empty mask it would answer a guess without an error: refused."""
        if int((arrays['mask'] & (arrays['depth'] >= 0.001)).sum()) < 4:
            raise ValueError('mask has fewer than 4 pixels with depth')
        if not self.real_scorer:
            from learning.training.predict_score import ScorePredictor

            self.estimator.scorer = ScorePredictor()
            self.real_scorer = True
        self.estimator.pose_last = None
        T = self.estimator.register(K=arrays['K'], rgb=arrays['rgb'], depth=arrays['depth'], ob_mask=arrays['mask'],
                                    iteration=fields['iterations'])
        if self.estimator.pose_last is None:
            raise ValueError('registration found nothing')
        return self._accept(fields['object'], T)

    def _accept(self, name, T):
        T = np.asarray(T, np.float64).reshape(4, 4)
        if not np.isfinite(T).all():
            raise ValueError('the pose has NaN or infinite entries')
        u, _, vt = np.linalg.svd(T[:3, :3])
        T[:3, :3] = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        self.last[name] = T
        return {}, {'T': T}


def serve(reader, writer):
    """Answer requests until `quit` or the end of the stream; an error in one request is its answer."""
    worker = Worker()
    while True:
        message = read_message(reader)
        if message is None or message[0]['op'] == 'quit':
            return
        fields, arrays = message
        try:
            answer, out = getattr(worker, {'hello': 'hello', 'start': 'start', 'step': 'step',
                                           'register': 'register'}[fields['op']])(fields, arrays)
            write_message(writer, dict(answer, ok=True), out)
        except Unavailable as error:
            write_message(writer, {'error': str(error), 'kind': 'unavailable'})
        except Exception as error:  # the estimator raises anything; the parent gets the text and decides
            write_message(writer, {'error': f'{type(error).__name__}: {error}', 'kind': 'runtime'})


def main():
    """Keep the pipe for messages alone: whatever the estimator prints goes to stderr."""
    writer = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)
    serve(sys.stdin.buffer, writer)


if __name__ == '__main__':
    main()
