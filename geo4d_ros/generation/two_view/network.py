"""The two-view network: encode once, predict the gripper's path, paint any subset of the future frames."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

from geo4d_ros.generation.two_view.arm import ArmHead, bones_seen
from geo4d_ros.generation.two_view.decoder import Decoder
from geo4d_ros.generation.two_view.encoder import PATCH, Encoder, Scene
from geo4d_ros.generation.two_view.guide import GUIDE_CHANNELS, REST, background_plate, body_guide, pixel_rays
from geo4d_ros.generation.two_view.state_head import StateHead

# Frame-0 segmentation the network predicts for its own guide: rest, arm, hand, finger, object.
SEGMENT_CLASSES = 5
OBJECT_SEGMENT = 4


PER_VIEW = ('rgb0', 'depth0', 'points', 'valid', 'segments', 'T_g0_view', 'T_view_g0', 'K', 'seen', 'true_depth0')
PER_FRAME_AND_VIEW = ('rgb', 'depth', 'labels')


def one_view_each(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch (B, V, ...) as (B V, 1, ...): nothing passes between views. Unseen views are no target."""
    views = batch['seen'].shape[1]
    alone = {k: batch[k].flatten(0, 1)[:, None] for k in PER_VIEW if k in batch}
    alone |= {k: batch[k].transpose(1, 2).flatten(0, 1)[:, :, None] for k in PER_FRAME_AND_VIEW if k in batch}
    alone |= {k: v.repeat_interleave(views, 0) for k, v in batch.items() if k not in alone}
    if 'expected' in alone:
        alone['expected'] = alone['expected'] & alone['seen']
    return alone


def repeat_frame0(rgb0: torch.Tensor, depth0: torch.Tensor, frames: int) -> dict[str, torch.Tensor]:
    """Maps as `Decoder.forward` gives them where nothing moves."""
    still = torch.cat([torch.ones_like(depth0), torch.zeros_like(depth0), torch.zeros_like(depth0)], 2)
    repeat = lambda a: a[:, None].expand(-1, frames, *a.shape[1:])  # noqa: E731
    return {'motion': repeat(20 * still), 'rgb': repeat(rgb0), 'depth': repeat(depth0)}


class TwoViewNetwork(ModelMixin, ConfigMixin):
    """Encoder, state head, frame-0 segmentation and decoder; every switch is a config field.

    cross_view: off = ablation without multi-view attention: give it `one_view_each` of a batch.
    guide: off = ablation; the decoder is not shown the moved hand nor what the other views see behind the arm.
    video: off = a direct policy, only the gripper's path is predicted and frame 0 repeated.
    arm_joints: how many joints of the arm, base and hand included, are measured and moved (0: none).
    given_poses: on = baseline that is told the cameras' true poses and does not register the views.
    max_opening: of the gripper [m]; the predicted openings lie below it.
    """

    @register_to_config
    def __init__(self, height: int = 96, width: int = 128, frames: int = 10, dt: float = 0.5, channels: int = 64,
                 dim: int = 192, encoder_layers: int = 4, decoder_layers: int = 1, heads: int = 6, pointers: int = 6,
                 refinements: int = 2, cross_view: bool = True, guide: bool = True, video: bool = True,
                 arm_joints: int = 0, given_poses: bool = False, max_opening: float = 0.08) -> None:
        super().__init__()
        self.encoder = Encoder(frames, channels, dim, encoder_layers, heads)
        self.segment = nn.Conv2d(channels, PATCH**2 * SEGMENT_CLASSES, 1)
        self.state_head = StateHead(channels, dim, pointers, refinements, max_opening)
        painted_arm = arm_joints if video and guide else 0
        self.arm_head = ArmHead(dim, painted_arm) if painted_arm else None
        self.decoder = Decoder(channels, dim, decoder_layers, heads, max(painted_arm - 1, 0)) if video else None

    def encode(self, rgb: torch.Tensor, points: torch.Tensor, valid: torch.Tensor, T_g0_view: torch.Tensor,
               opening: torch.Tensor, seen: torch.Tensor) -> Scene:
        """See `Encoder.forward`."""
        return self.encoder(rgb, points, valid, T_g0_view, opening, seen)

    def segment_logits(self, scene: Scene) -> torch.Tensor:
        """Frame-0 class logits (B, V, 5, H, W)."""
        b, v = scene.features.shape[:2]
        return F.pixel_shuffle(self.segment(scene.features.flatten(0, 1)), PATCH).unflatten(0, (b, v))

    def paint(self, scene: Scene, batch: dict[str, torch.Tensor], segments: torch.Tensor, queries: torch.Tensor,
              T_g0_g: torch.Tensor, opening: torch.Tensor) -> dict[str, torch.Tensor]:
        """K future frames of all views, given the gripper's poses (B, K, 4, 4) and openings (B, K) [m] in them.

        batch: rgb0, depth0, points, valid, T_view_g0, T_g0_view, K, opening0, arm0 as in
        training/two_view/batches.py; segments (B, V, H, W) frame-0 classes; queries (B, K, D) of those frames.
        Returns `Decoder.forward`'s maps and moved_hand (B, K, V, 2, H, W): depth [m] and mask of the guide's hand.
        """
        b, v, _, h, w = batch['rgb0'].shape
        if self.decoder is None:
            return repeat_frame0(batch['rgb0'], batch['depth0'], T_g0_g.shape[1])
        arm0 = arm = bones = None
        rays, R, origins = pixel_rays(batch['T_g0_view'], batch['K'], h, w, PATCH), *_parts(batch['T_g0_view'])
        if self.arm_head is not None:
            arm0, arm = batch['arm0'], self.arm_head(T_g0_g, batch['arm0']).detach()
            bones = bones_seen(arm, rays, origins, R)
        if self.config.guide:
            guide = body_guide(batch['points'], batch['rgb0'], segments * batch['valid'], batch['T_view_g0'],
                               batch['K'], T_g0_g, batch['opening0'], opening, arm0, arm)
            plate = background_plate(batch['points'], batch['rgb0'], (segments == REST) & batch['valid'],
                                     batch['T_view_g0'], batch['K'])
        else:
            guide = scene.features.new_zeros((b, T_g0_g.shape[1], v, GUIDE_CHANNELS, h, w))
            plate = guide[:, 0, :, :5]
        out = self.decoder(scene, queries, T_g0_g, opening, guide, plate, rays, origins, batch['rgb0'],
                           batch['depth0'], bones)
        return out | {'moved_hand': guide[:, :, :, 3:5]}


def _parts(T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return T[..., :3, :3], T[..., :3, 3]
