"""The node `video_generator`: one synchronised look of the cameras in, one predicted 4D video out."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from geo4d_interfaces.msg import Plan as PlanMessage
from geo4d_interfaces.srv import Predict

from geo4d_ros.errors import Geo4dError, PeerLostError, PredictionTimeoutError
from geo4d_ros.generation.extra_views import predicted_views
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.loop.verdict import judge
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.bench.stopwatch import Stopwatch
from geo4d_ros.ros.observe.observer import Look, Observer, ObserverParameters
from geo4d_ros.ros.serve import diagnostics
from geo4d_ros.ros.serve.blocking_service import BlockingService
from geo4d_ros.ros.serve.lifecycle import LifecycleParameters, ManagedNode
from geo4d_ros.ros.serve.liveness import announce
from geo4d_ros.ros.serve.parameters import NodeParameters, parameter
from geo4d_ros.ros.serve.spin import run_node
from geo4d_ros.ros.serve.torch_import import wait_for_torch
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.ros.wire.plan_answer import PlanAnswer
from geo4d_ros.ros.wire.plan_message import predict_reply
from geo4d_ros.ros.wire.prediction import Prediction, PredictionPublisher

# Tracks a prediction in this process; returns the plan that went out, or the refusal in its place.
Handoff = Callable[[Prediction], PlanMessage]
MAX_INSTRUCTION = 500  # characters, as in Observation


@dataclass(frozen=True)
class GeneratorParameters(ObserverParameters, LifecycleParameters):
    """Parameters of the node, besides those of the observer."""

    checkpoint: str = parameter('geo4d-sim-small', 'Directory of the weights, or a name under models/.',
                                read_only=True)
    generator: str = parameter('', 'remote://host:port of a `geo4d serve`; empty: the checkpoint, in this process.',
                               read_only=True)
    device: str = parameter('cpu', 'Where the model runs: cpu, openvino, cuda, cuda:1, ...', read_only=True)
    seed: int = parameter(0, 'Seed of the first prediction; each further one adds 1.', minimum=0, maximum=2**31 - 1)
    load_timeout: float = parameter(5.0, 'How long a request waits for the weights while they load [s].', minimum=0.0,
                                    maximum=3600.0)
    tracker_timeout: float = parameter(5.0, 'How long a request waits for a tracker in another process [s]; '
                                       '0 answers without it.', minimum=0.0, maximum=600.0)


class VideoGeneratorNode(ManagedNode):
    """Service /geo4d/predict; every refusal carries a reason code and leaves the node alive."""

    def __init__(self, hand_off: Handoff | None = None) -> None:
        super().__init__('video_generator')
        self._busy, self._count = threading.Lock(), 0
        self.parameters = NodeParameters(self, GeneratorParameters,
                                         locked=lambda: 'a prediction is under way' if self._busy.locked() else '')
        self.diagnostics = diagnostics.Diagnostics(self)
        self._tracks_here = hand_off  # None: a tracker in another process does

    def set_up(self) -> None:
        """Listen to the cell and load the weights; a node that comes up by itself loads them beside its start."""
        self.observer = Observer(self, lambda: self.parameters.values, self.diagnostics)
        self.owned.callback(self.observer.close)
        self.publisher = PredictionPublisher(self, len(self.observer.cameras))
        self._hand_off = self._tracks_here or partial(self._elsewhere, PlanAnswer(Boundary(self, self.diagnostics)))
        self._generator: Future[VideoGenerator] = Future()
        self.diagnostics.set('generator', diagnostics.WARN, 'loading')
        self._loader = threading.Thread(target=self._load, name='load', daemon=True)
        self._loader.start()
        self.owned.callback(self._loader.join)
        if not self.autostart:
            self._generator.result()
        self.owned.callback(BlockingService(self, Predict, 'geo4d/predict', self._predict).close)
        self._alive = announce(self)

    def create_generator(self) -> VideoGenerator:
        """Open the checkpoint; tests replace it."""
        from geo4d_ros.generation.loading import open_generator

        p = self.parameters.values
        return open_generator(p.generator or p.checkpoint, p.device)

    def _load(self) -> None:
        """In its own thread: torch takes seconds to import. A failure is kept and answers every request."""
        try:
            generator = self.create_generator()
        except Exception as error:
            if not isinstance(error, Geo4dError):
                self.get_logger().error(traceback.format_exc())
            self.get_logger().error(f'no generator: {error}')
            self.diagnostics.set('generator', diagnostics.ERROR, str(error))
            self._generator.set_exception(error)
        else:
            # Not before: SciPy, which reads the transforms, fails beside a half-imported torch. A tracker of this
            # process imports it, too, also where the generator needs none: this waits until it is whole.
            if self._tracks_here is not None:
                wait_for_torch()
            self.observer.receiver.start()
            self.diagnostics.set('generator', diagnostics.OK, 'ready', name=generator.name)
            self._generator.set_result(generator)

    def _predict(self, request: Predict.Request, response: Predict.Response) -> Predict.Response:
        answer = self.inactive or self._predict_alone(request.instruction)
        if isinstance(answer, Refusal):
            if answer.reason is not Reason.BUSY:
                self.diagnostics.set('prediction', diagnostics.WARN, answer.message)
                self.get_logger().warning(answer.message)
            return Predict.Response(reason=answer.reason.code, detail=answer.detail)
        return answer

    def _predict_alone(self, instruction: str) -> Predict.Response | Refusal:
        if not self._busy.acquire(blocking=False):
            return Refusal(Reason.BUSY, 'a prediction is already under way')
        try:
            return self.predict(instruction)
        except Exception as error:  # whatever comes: the one who asked is answered
            self.get_logger().error(traceback.format_exc())
            return Refusal(Reason.PREDICTION_FAILED, f'{type(error).__name__}: {error}')
        finally:
            self._busy.release()

    def predict(self, instruction: str = '') -> Predict.Response | Refusal:
        """Look, predict, publish, track: the answer of the service, or why there is none."""
        clock = Stopwatch()
        generator = self._loaded()
        if isinstance(generator, Refusal):
            return generator
        clock.lap('load')
        look = self.observer.look() if len(instruction) <= MAX_INSTRUCTION else Refusal(
            Reason.PREDICTION_FAILED, f'an instruction has up to {MAX_INSTRUCTION} characters')
        if isinstance(look, Refusal):
            return look
        clock.lap('observe')
        if instruction:
            look = replace(look, observation=replace(look.observation, instruction=instruction))
        with self.observer.receiver.resting():
            return self._answer(generator, look, clock)

    def _answer(self, generator: VideoGenerator, look: Look, clock: Stopwatch) -> Predict.Response | Refusal:
        seed = self.parameters.values.seed + self._count
        self._count += 1
        try:
            look = self.observer.for_model(look, predicted_views(generator))
            video = generator.predict(look.observation, seed)
        except PredictionTimeoutError as error:
            return Refusal(Reason.PREDICTION_TIMEOUT, str(error))
        except PeerLostError as error:
            return Refusal(Reason.PEER_DEAD, str(error))
        except Exception as error:
            # Whatever a model raises, the cell keeps running: no plan, and the cause in the log.
            self.get_logger().error(traceback.format_exc())
            return Refusal(Reason.PREDICTION_FAILED, f'{type(error).__name__}: {error}')
        clock.lap('generate')
        if int(video.stamps[0]) != look.observation.stamp or not video.valid[:, 1:].any():
            return Refusal(Reason.PREDICTION_INVALID, 'the video does not start at the observation or is empty')
        if self.inactive:  # meanwhile
            return self.inactive
        prediction = Prediction(f'{look.observation.stamp}-{seed}', look.observation, video)
        self.publisher.publish(prediction)
        clock.lap('publish')
        plan = self._hand_off(prediction)
        clock.lap('track')
        stages = {**clock.milliseconds(), **{f'generate.{k}': v * 1e3 for k, v in video.timings.items()}}
        self.diagnostics.set('prediction', diagnostics.OK, 'ready', plan=plan.id, skew_ms=look.skew * 1e3,
                             age_ms=look.age * 1e3, **clock.milliseconds())
        return predict_reply(plan, judge(video, look.observation.opening), look.observation.stamp, stages,
                             generator=generator.name, frames=video.frames, skew_ms=look.skew * 1e3,
                             age_ms=look.age * 1e3)

    def _loaded(self) -> VideoGenerator | Refusal:
        try:
            return self._generator.result(self.parameters.values.load_timeout)
        except TimeoutError:
            return Refusal(Reason.PREDICTION_TIMEOUT, 'the weights are still loading')
        except Exception as error:
            return Refusal(Reason.PREDICTION_FAILED, f'no generator: {error}')

    def _elsewhere(self, answer: PlanAnswer, prediction: Prediction) -> PlanMessage:
        return answer.wait(prediction, self.parameters.values.tracker_timeout)


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable `video_generator`."""
    return run_node(VideoGeneratorNode, args)


if __name__ == '__main__':
    sys.exit(main())
