"""The environment of our ROS processes: which transport, which network, which domain.

A process reads these variables once, when rclpy starts: set them before it is spawned.
"""

from __future__ import annotations

import os
import random
import socket

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.resources import resource

# Below Linux's ephemeral ports (32768): DDS ports are 7400 + 250 * domain + 10 ...
DOMAIN_IDS = range(1, 101)
# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 the second.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def free_domain_id() -> int:
    """A random domain id in which no participant of this host has bound its port."""
    for domain_id in random.sample(DOMAIN_IDS, len(DOMAIN_IDS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('127.0.0.1', 7410 + 250 * domain_id))
            except OSError:
                continue
        return domain_id
    raise ConfigurationError('every ROS domain id from 1 to 100 is in use on this host; end other ROS processes')


def transport_environment(profile: str = 'fastdds.xml') -> dict[str, str]:
    """Variables that make Fast DDS carry two RGB-D cameras without drops.

    Empty when the user has a profile of his own: it wins.
    """
    if any(name in os.environ for name in PROFILE_VARIABLES):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(resource('config', profile)))


def simulation_environment(loopback: bool) -> dict[str, str]:
    """What `simulation.launch.py` sets: images without drops and, with `loopback`, nothing leaves this host.

    The domain stays the user's, so that `ros2 topic list` in another terminal shows the cell.
    """
    if not loopback:
        return transport_environment()
    return {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', **transport_environment('fastdds_loopback.xml')}


def loopback_environment(domain_id: int | None = None) -> dict[str, str]:
    """Variables for a graph that never leaves this host, in its own domain (a free one by default).

    Used alike by the demo and the tests:
    `subprocess.Popen(command, env={**os.environ, **loopback_environment()})`.
    """
    return {
        'ROS_DOMAIN_ID': str(free_domain_id() if domain_id is None else domain_id),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
        # Of a process that is stopped, what it said last must not stay in a buffer.
        'PYTHONUNBUFFERED': '1',
        # One that crashes says where.
        'PYTHONFAULTHANDLER': '1',
        **dict.fromkeys(PROFILE_VARIABLES, str(resource('config', 'fastdds_loopback.xml'))),
    }
