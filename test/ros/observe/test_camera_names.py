"""Which cameras a node is told to look through, and what is wrong with a list in one line."""

import pytest

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.ros.graph.launch_arguments import camera_list
from geo4d_ros.ros.observe.camera_names import CameraParameters, camera_names


def test_a_list_goes_before_the_two_names():
    assert camera_names(CameraParameters()) == ('camera1/camera1', 'camera2/camera2')
    assert camera_names(CameraParameters(second_camera='')) == ('camera1/camera1',)
    assert camera_names(CameraParameters(cameras=('a/a', 'b/b', 'c/c'))) == ('a/a', 'b/b', 'c/c')
    assert camera_names(CameraParameters(cameras=('a/a',))) == ('a/a',)


@pytest.mark.parametrize('names, message', [
    (('a/a', '/a/a'), 'named twice'), (tuple(f'c{i}' for i in range(9)), '1 to 8 cameras but 9')])
def test_what_cannot_be_is_told(names, message):
    with pytest.raises(ConfigurationError, match=message):
        camera_names(CameraParameters(cameras=names))


def test_a_node_without_any_camera_is_told_so():
    with pytest.raises(ConfigurationError, match='but 0 are named'):
        camera_names(CameraParameters(reference_camera='', second_camera=''))


def test_the_launch_argument_is_a_list_for_a_real_cell():
    assert camera_list('a/a, /b/b', False) == ['a/a', '/b/b']
    for text in ('a/a,,b', 'a b', "['a']"):
        with pytest.raises(ConfigurationError, match='separated by commas'):
            camera_list(text, False)
    with pytest.raises(ConfigurationError, match='simulated cell has two cameras'):
        camera_list('a/a,b/b', True)
