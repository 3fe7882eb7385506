"""The four ROS nodes; each converts, calls the library and publishes."""

import os

# NumPy, torch and Mesa's software renderer read these once, when they are loaded, and would each take every core. The
# others of the cell (drivers, controllers, executor) run beside them: a step spread over all cores waits for the one
# that somebody else just uses. What the user has set stays.
for _name in ('OMP_NUM_THREADS', 'LP_NUM_THREADS'):
    os.environ.setdefault(_name, str(max(1, (os.cpu_count() or 1) - 1)))
