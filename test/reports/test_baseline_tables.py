"""The README's table of baselines: one row each, the shipped model first, gaps shown as gaps."""

import pytest

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.reports.tables import rewrite

README = '<!-- results: baselines -->\nold\n<!-- end -->\n'


def row(miou):
    interval = None if miou is None else [miou - 0.1, miou + 0.1]
    return {'motion_masked': {'psnr': 16.0, 'abs_rel': 0.05, 'error_3d_cm': 9.0}, 'consistency_covisible_miou': miou,
            'ci95': {'consistency_covisible_miou': interval}}


def loop(rate, n):
    return {'readout': 'fused', 'success_rate': rate, 'ci95': [0.1, 0.9], 'tasks': {'apple': {'n': n}}}


def first5(value):
    return {'position_cm_first5_median': value}


def reports():
    rows = {'model': row(0.7), 'svd': {**row(None), 'readouts': {'video': first5(8.0)}}, 'copy': row(0.98),
            'codec': row(0.98)}
    return {'baselines_video': {'rows': rows, 'readouts': {'state': first5(1.0), 'video': first5(1.7)},
                                'training': {'svd': {'trained_min': 5.0, 'steps': 300}}},
            'baselines_closed_loop': {**loop(0.8, 10), 'baselines': {'svd': loop(0.0, 10)}}}


def test_every_row_of_the_reports_is_in_the_table():
    lines = rewrite(README, reports()).splitlines()
    table = [line for line in lines if line.startswith('| `')]
    assert [line.split('`')[1] for line in table] == ['model', 'svd', 'copy']
    assert '0.70 [0.60, 0.80] | 1 | 1.7 | fused: 0.80 [0.10, 0.90] (n=10)' in table[0]
    assert '| 5 | 16 |' in table[1] and '| - | - | 8 | fused: 0.00' in table[1]
    assert table[2].rstrip(' |').endswith('-')


def test_a_missing_report_is_named():
    with pytest.raises(ConfigurationError, match='baselines_video'):
        rewrite(README, {})
