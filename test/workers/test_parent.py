"""Workers of a pool end with the process that started them, whatever ended it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

PARENT = '''
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from geo4d_ros.workers.parent import end_with_parent
if __name__ == '__main__':
    with ProcessPoolExecutor(2, mp_context=get_context('spawn'), initializer=end_with_parent) as pool:
        jobs = [pool.submit(time.sleep, seconds) for seconds in (0, 0, 600, 600)]
        jobs[0].result(), jobs[1].result()
        print(*pool._processes, flush=True)
        time.sleep(600)
'''


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, number):
    script = tmp_path / 'parent.py'
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
                          env=os.environ | {'PYTHONPATH': os.getcwd()}) as parent:
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2 and all(worker.is_running() for worker in workers)
        parent.send_signal(number)
        end = time.monotonic() + 30
        while time.monotonic() < end and any(worker.is_running() for worker in workers):
            time.sleep(0.05)
        left = [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
        for worker in left:
            worker.kill()
        assert not left
