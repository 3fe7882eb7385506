"""The doctor's word on the shipped checkpoints: all of them, checked against their manifests."""

import shutil

from geo4d_ros.cli import doctor
from geo4d_ros.resources import share_directory


def test_every_shipped_model_matches_its_manifest():
    checks = {check.name: check for check in doctor.models()}
    assert {'model geo4d-sim-small', 'model gripper-segmenter-small', 'model gripper-opening-small'} <= set(checks)
    assert all(check.ok for check in checks.values()), [check.detail for check in checks.values()]


def test_a_changed_segmenter_is_named(tmp_path, monkeypatch):
    folder = tmp_path / 'models' / 'gripper-segmenter-small'
    shutil.copytree(share_directory() / 'models' / 'gripper-segmenter-small', folder)
    weights = folder / 'segmenter.safetensors'
    weights.write_bytes(weights.read_bytes()[:-1] + b'x')
    monkeypatch.setattr(doctor, 'share_directory', lambda: tmp_path)
    (check,) = doctor.models()
    assert not check.ok and 'changed' in check.detail and 'git checkout' in check.fix
