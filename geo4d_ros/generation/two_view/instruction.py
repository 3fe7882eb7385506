"""Which task a short text asks for, by the words of the texts it was fitted to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from geo4d_ros.errors import require

LEAST_MARGIN = 1.0  # between the best and the next task, in nats: less is no clear wish
SMOOTHING = 0.1


def words(text: str) -> list[str]:
    """Lower-case words without a plural s."""
    return [w.removesuffix('s') if len(w) > 3 else w for w in re.findall('[a-z]+', text.lower())]


class InstructionReader:
    """Naive Bayes over words: weights[word] is the log-likelihood (tasks,) of the word under every task."""

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, Sequence[float]]) -> None:
        self.tasks, self.weights = tuple(tasks), {w: np.asarray(v, float) for w, v in weights.items()}

    @classmethod
    def fit(cls, texts: Mapping[str, Sequence[str]]) -> InstructionReader:
        """From several texts per task."""
        counts = {task: Counter(w for text in several for w in set(words(text))) for task, several in texts.items()}
        vocabulary = sorted(set().union(*counts.values()))
        share = lambda task, w: (counts[task][w] + SMOOTHING) / (len(texts[task]) + 2 * SMOOTHING)  # noqa: E731
        return cls(tuple(texts), {w: [float(np.log(share(task, w))) for task in texts] for w in vocabulary})

    def task_of(self, text: str) -> int:
        """Number of the task; raises InvalidInputError when the text names none or several equally."""
        total = sum((self.weights[w] for w in set(words(text)) if w in self.weights), np.zeros(len(self.tasks)))
        order = np.argsort(total)
        clear = len(total) == 1 or total[order[-1]] - total[order[-2]] >= LEAST_MARGIN
        known = ', '.join(self.tasks)
        require(bool(clear), f'the instruction {text!r} names none of the known tasks ({known}) clearly; say '
                'which object goes where')
        return int(order[-1])

    @classmethod
    def load(cls, path: Path) -> InstructionReader:
        """Read what `save` wrote."""
        data = json.loads(path.read_text())
        return cls(data['tasks'], data['weights'])

    def save(self, path: Path) -> None:
        """Write as JSON."""
        weights = {w: [round(float(x), 4) for x in v] for w, v in self.weights.items()}
        path.write_text(json.dumps({'tasks': list(self.tasks), 'weights': weights}, indent=0) + '\n')
