"""The real generator or tracker node around its fake, in a process of its own: `apart.py generator|tracker`."""

import sys

from fakes.prediction import FakeGenerator, FakeTracker

from geo4d_ros.ros.serve.spin import run_node

if __name__ == '__main__':
    role, *arguments = sys.argv[1:]
    sys.exit(run_node({'generator': FakeGenerator, 'tracker': FakeTracker}[role], arguments,
                      threads=3 if role == 'tracker' else 1))
