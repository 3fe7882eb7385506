"""What `geo4d_ros` offers by name: all of it is there, and asking for the package alone loads nothing heavy."""

import subprocess
import sys

import pytest

import geo4d_ros


def test_every_public_name_is_there_and_others_are_told():
    for name in geo4d_ros.__all__:
        assert getattr(geo4d_ros, name) is not None
    assert set(geo4d_ros.__all__) <= set(dir(geo4d_ros))
    with pytest.raises(AttributeError, match='open_generator'):
        _ = geo4d_ros.open_generators


def test_the_package_alone_loads_no_torch():
    code = "import sys, geo4d_ros; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
