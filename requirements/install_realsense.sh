#!/usr/bin/env bash
# usage: install_realsense.sh PYTHON: librealsense's wheel and the library it needs. Optional: without it, what needs
# it says so, and its tests are skipped by name.
set -uo pipefail
python=$1
has_usb() { ldconfig -p | grep -q 'libusb-1\.0\.so\.0'; }
if ! has_usb && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    install() { DEBIAN_FRONTEND=noninteractive timeout 60 apt-get install -y -qq --no-install-recommends libusb-1.0-0; }
    install > /dev/null 2>&1 || { timeout 60 apt-get update -qq > /dev/null 2>&1 && install > /dev/null 2>&1; }
fi
has_usb || { echo 'setup: no RealSense cameras without ROS; for them: sudo apt-get install libusb-1.0-0' >&2; exit 0; }
"$python" -m pip install -qq --no-warn-script-location -r "$(dirname "$0")/realsense.txt" ||
    echo 'setup: pyrealsense2 cannot be installed here: no RealSense cameras without ROS' >&2
