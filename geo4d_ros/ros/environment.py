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
    """Variables that make Fast DDS carry two RGB-D cameras without drops; a profile of the user's own wins."""
    if 'FASTRTPS_DEFAULT_PROFILES_FILE' in os.environ or 'FASTDDS_DEFAULT_PROFILES_FILE' in os.environ:
        return {}
    path = str(resource('config', profile))
    # Fast DDS 2 (Jazzy) reads the first name, Fast DDS 3 the second.
    return {'FASTRTPS_DEFAULT_PROFILES_FILE': path, 'FASTDDS_DEFAULT_PROFILES_FILE': path}


def loopback_environment(domain_id: int | None = None) -> dict[str, str]:
    """Variables for a graph that never leaves this host, in its own domain (a free one by default).

    Used alike by the demo, the tests and `simulation.launch.py`:
    `subprocess.Popen(command, env={**os.environ, **loopback_environment()})`.
    """
    path = str(resource('config', 'fastdds_loopback.xml'))
    return {
        'ROS_DOMAIN_ID': str(free_domain_id() if domain_id is None else domain_id),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
        'FASTRTPS_DEFAULT_PROFILES_FILE': path,
        'FASTDDS_DEFAULT_PROFILES_FILE': path,
        # The picture of a process that is stopped must not wait in a buffer.
        'PYTHONUNBUFFERED': '1',
    }
