"""Builds the package with pip and with colcon (ament_python)."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'geo4d_ros'
ROOT = Path(__file__).parent


def shared(folder: str) -> list[tuple[str, list[str]]]:
    """data_files entries that put `folder` with its sub-folders into share/geo4d_ros."""
    files = sorted(p.relative_to(ROOT) for p in (ROOT / folder).rglob('*')
                   if p.is_file() and '__pycache__' not in p.parts)
    parents = sorted({file.parent for file in files})
    return [(f'share/{NAME}/{parent}', [str(f) for f in files if f.parent == parent]) for parent in parents]


nodes = ['video_generator', 'gripper_tracker', 'prediction', 'plan_executor', 'simulated_cell']

setup(
    name=NAME,
    version='0.1.0',
    description='Closes the loop on a robot arm with a geometry-aware 4D video generator, on ROS 2',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['py.typed', 'ros/interfaces/*/*/*', 'data/writers/*.json']},
    # numpy 1.26 is Jazzy's; the rest lies in requirements/, since ROS machines take it from apt.
    extras_require={'openvino': ['openvino>=2026.0'],
                    'realsense': ['pyrealsense2>=2.55'],
                    'viewer': ['rerun-sdk>=0.24'],
                    'ray': ['ray>=2.50'],
                    'hub': ['huggingface_hub>=1.0'],
                    'remote': ['websockets>=15', 'msgpack>=1.0', 'zstandard>=0.22']},
    install_requires=['numpy>=1.26', 'scipy', 'pillow', 'pyyaml'],
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        # `ros2 run` and launch look for executables here; `geo4d` alone goes to bin, where PATH has it.
        (f'lib/{NAME}', [f'scripts/{node}' for node in nodes]),
        *shared('launch'), *shared('config'), *shared('models'), *shared('interfaces'),
    ],
    entry_points={'console_scripts': ['geo4d = geo4d_ros.cli.main:main']},
    zip_safe=False,
)
