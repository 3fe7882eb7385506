#!/usr/bin/env bash
# usage: scripts/install_check.sh [--full] [--json FILE]
# The README's ROS steps in a clean folder, as far as they go on this machine; the end says what was covered.
# --json writes the same as one object.
# --full installs requirements/jazzy.txt (gigabytes) as well; without it, and without ROS, this checkout's .venv lends its packages.
# Sources of ROS's `launch`, where it is not installed: LAUNCH_SOURCES=<folder of the jazzy branches of ros2/launch and
# ros2/launch_ros>, unpacked side by side.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
full= json=
while [ $# -gt 0 ]; do
    case $1 in
        --full) full=yes ;;
        --json) json=$(realpath -m "${2:?--json needs a file}"); shift ;;
        *) echo "install_check: unknown option $1; see its first lines" >&2; exit 2 ;;
    esac
    shift
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
covered=() missing=()
covered() { covered+=("$1"); }
missing() { missing+=("$1"); }
step() { echo "== $1"; }

step 'a workspace'
mkdir -p "$work/ws/src/geo4d_ros"
(cd "$here" && git ls-files -z --cached --others --exclude-standard | xargs -0 tar c) | tar x -C "$work/ws/src/geo4d_ros"
cd "$work/ws"

step 'a virtual environment'
# The variables of a ROS installation are read as they are.
[ -f /opt/ros/jazzy/setup.bash ] && { set +u; source /opt/ros/jazzy/setup.bash; set -u; }
python3 -m venv --system-site-packages .venv
touch .venv/COLCON_IGNORE
source .venv/bin/activate
site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
lent=$(ls -d "$here"/.venv/lib/python3.*/site-packages 2> /dev/null | head -1 || true)
if [ -n "$full" ]; then
    pip install -q -r src/geo4d_ros/requirements/jazzy.txt
    pip install -q --no-deps -r src/geo4d_ros/requirements/assets.txt
    python -c 'import numpy, torch, mujoco, pinocchio, zarr, cv2; assert numpy.__version__ < "2", numpy.__version__'
    covered 'pip install -r requirements/jazzy.txt, with NumPy 1'
else
    missing 'pip install -r requirements/jazzy.txt (run with --full)'
fi
if ! python -c 'import rclpy' 2> /dev/null; then
    missing 'apt: ROS 2 Jazzy, rosdep (the PyPI wheels of rclpy stand in)'
    [ -n "$lent" ] || { echo 'neither ROS nor the .venv of `make setup` is here' >&2; exit 2; }
    # Behind the clean environment's own packages.
    echo "import site; site.addsitedir('$lent')" > "$site/lent.pth"
    # The wheels of rclpy look for their libraries in the environment that runs; here they are the lent one's.
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
    LD_LIBRARY_PATH=$(printf '%s:' "$here/.venv/lib" "$lent"/ros_*.libs)${LD_LIBRARY_PATH:-}
    export LD_LIBRARY_PATH
else
    covered 'rclpy of ROS 2 Jazzy'
fi

build() {
    rm -rf build install log
    python -m colcon --log-level error build --base-paths src $interfaces "$@" > build.txt 2>&1 || { cat build.txt; exit 1; }
}
if python -c 'import colcon_ros, colcon_bash' 2> /dev/null; then
    colcon="the system's"
else
    pip install -q colcon-common-extensions
    colcon="pip's"
fi
interfaces=src/geo4d_ros/interfaces
if [ -z "${AMENT_PREFIX_PATH:-}" ]; then  # of a ROS installation; our own comes later
    missing 'colcon build of geo4d_interfaces (needs ament_cmake and rosidl; make setup compiles the same definitions)'
    interfaces=  # colcon looks for no package inside another one
fi
for mode in '' --symlink-install; do
    step "colcon build${mode:+ $mode}"
    build $mode
    set +u; source install/setup.bash; set -u
    hash -r
    case $(command -v geo4d) in "$PWD"/install/*) ;; *) echo "geo4d is $(command -v geo4d)" >&2; exit 1 ;; esac
    python -c 'import geo4d_ros, os, sys; sys.exit(not os.path.realpath(geo4d_ros.__file__).startswith(os.getcwd()))'
    geo4d --help > /dev/null
    for node in prediction video_generator gripper_tracker plan_executor simulated_cell; do
        test -x "install/geo4d_ros/lib/geo4d_ros/$node" || { echo "$node is missing" >&2; exit 1; }
    done
    covered "colcon build${mode:+ $mode} ($colcon colcon), geo4d on PATH, executables where ros2 run looks"
done

export PYTHONPATH ROS_DOMAIN_ID=${ROS_DOMAIN_ID:-77} ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST MUJOCO_GL=${MUJOCO_GL:-egl}
if [ -n "${LAUNCH_SOURCES:-}" ]; then
    for package in launch launch_ros launch_yaml launch_xml; do PYTHONPATH="$LAUNCH_SOURCES/$package:$PYTHONPATH"; done
    pip install -q osrf-pycommon
    if ! python -c 'import composition_interfaces' 2> /dev/null; then  # launch_ros names its service, nothing here calls it
        mkdir "$site/composition_interfaces"
        printf 'class LoadNode:\n    Request = Response = object\n' > "$site/composition_interfaces/srv.py"
        touch "$site/composition_interfaces/__init__.py"
        missing 'composition_interfaces (a stand-in satisfies launch_ros)'
    fi
fi
if python -c 'import launch_ros.actions' 2> /dev/null; then
    step 'launch files'
    for file in plan_and_execute cameras simulation replay; do
        python - "install/geo4d_ros/share/geo4d_ros/launch/$file.launch.py" <<'PY'
import sys
from launch.launch_description_sources import get_launch_description_from_python_launch_file
assert get_launch_description_from_python_launch_file(sys.argv[1]).get_launch_arguments()
PY
    done
    covered 'the four launch files load from the installation'
    step 'a preset of an arm'
    python - <<'PY'
from launch import LaunchContext
from launch.actions import OpaqueFunction
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from geo4d_ros.errors import ConfigurationError
from geo4d_ros.resources import resource

def started(robot):
    entities = get_launch_description_from_python_launch_file(str(resource('launch', 'plan_and_execute.launch.py'))).entities
    context = LaunchContext()
    for argument in entities[:-1]:
        argument.execute(context)
    context.launch_configurations.update(sim='false', robot=robot)
    return [a for e in entities if isinstance(e, OpaqueFunction) for a in e.execute(context)]

assert started('fr3')
try:
    started('fr4')
except ConfigurationError as error:
    assert 'fr3' in str(error)
else:
    raise AssertionError('an unknown robot was taken')
PY
    covered 'robot:=fr3 builds its nodes, an unknown robot is refused with the list of those that exist'
    step 'plan_and_execute.launch.py, and a prediction'
    python - <<'PY'
import multiprocessing
import os
import signal
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from geo4d_ros.resources import resource
from geo4d_ros.ros.graph.probe import LoopProbe

def serve():
    service = LaunchService()
    source = PythonLaunchDescriptionSource(str(resource('launch', 'plan_and_execute.launch.py')))
    service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source)]))
    service.run()

process = multiprocessing.get_context('fork').Process(target=serve)
process.start()
try:
    with LoopProbe() as probe:
        good = probe.wait_for(lambda: probe.predict(60.0)[0], 180.0)
finally:
    os.kill(process.pid, signal.SIGINT)  # after SIGTERM launch leaves its nodes behind
    process.join(60.0)
assert not process.is_alive(), 'the launch does not end'
assert good, 'no prediction in 180 s'
PY
    covered 'ros2 launch geo4d_ros plan_and_execute.launch.py, then /geo4d/predict'
else
    missing 'ros2 launch (set LAUNCH_SOURCES)'
fi
missing 'RViz, MoveIt, RealSense drivers'
echo
printf 'covered: %s\n' "${covered[@]}"
printf 'not covered: %s\n' "${missing[@]}"
if [ -n "$json" ]; then
    mkdir -p "$(dirname "$json")"
    (cd "$here" && python - "$json" "$(printf '%s\n' "${covered[@]}")" "$(printf '%s\n' "${missing[@]}")" <<'PY'
import json, platform, subprocess, sys
target, covered, missing = sys.argv[1], *(text.splitlines() for text in sys.argv[2:])
revision = subprocess.run(['git', 'rev-parse', '--short=12', 'HEAD'], capture_output=True, text=True).stdout.strip()
report = {'revision': revision, 'python': platform.python_version(), 'system': platform.freedesktop_os_release()['PRETTY_NAME'],
          'covered': covered, 'not_covered': missing}
with open(target, 'w') as file:
    json.dump(report, file, indent=1)
    file.write('\n')
PY
    )
fi
