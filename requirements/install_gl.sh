#!/usr/bin/env bash
# Headless OpenGL for the simulated cell's cameras: Debian's EGL packages, or one line saying what to install.
set -euo pipefail
packages="libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"
if ldconfig -p | grep -q 'libEGL\.so\.1' && ldconfig -p | grep -q 'libGL\.so\.1'; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages > /dev/null
else
    echo "setup: EGL is missing, the simulated cameras need it; run: sudo apt-get install $packages" >&2
    exit 1
fi
