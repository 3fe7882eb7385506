"""The baseline registry finds trained checkpoints by name."""

from geo4d_ros.evaluation.baselines import BASELINES, found_checkpoints
from geo4d_ros.tracking.protocol import READOUTS


def test_found_in_registry_order_and_strangers_are_left_out(tmp_path):
    for name in ('svd_rgb', 'ours', 'stranger'):
        (tmp_path / name).mkdir()
    assert list(found_checkpoints(tmp_path)) == ['ours', 'svd_rgb']


def test_readouts_are_known():
    assert all(set(b.readouts) <= set(READOUTS) for b in BASELINES.values())
