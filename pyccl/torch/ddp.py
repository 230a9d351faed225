"""DistributedDataParallel over groups whose ranks come and go, or whose gradients travel in few
bits: a communication hook, and a module that brings it along."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

import pyccl
from pyccl.errors import InvalidArgumentError, PycclError
from pyccl.quantization import Codec, Quantization
from pyccl.torch.calls import Begin
from pyccl.torch.elastic import ElasticGroup
from pyccl.torch.lent import Lent
from pyccl.torch.process_group import ProcessGroup
from pyccl.torch.tags import GRADIENTS
from pyccl.torch.tensors import as_numbers
from pyccl.torch.work import Work


class DDPState:
    """What ddp_hook() is registered with.

    group: an ElasticGroup or a ProcessGroup.
    quantization: a pyccl.Quantization or the name of its codec: gradients travel in fewer bits.
    error_feedback: what quantization takes from a gradient is added to the next one
        (pyccl.ErrorFeedback), by bucket.

    `weight` may be set between steps: what this rank's gradients count in the mean, for example the
    samples of its batch; 0 takes part without contributing.
    """

    def __init__(
        self,
        group: ProcessGroup,
        *,
        quantization: Quantization | Codec | None = None,
        error_feedback: bool = False,
    ) -> None:
        if not isinstance(group, ProcessGroup):
            raise InvalidArgumentError(
                f"group is of type {type(group).__name__}, but must be a group of pyccl.torch"
            )
        self.quantization = Quantization.of(quantization)
        if error_feedback and self.quantization is None:
            raise InvalidArgumentError("error_feedback is of quantized gradients: say how they are")
        self.group = group
        self.error_feedback = error_feedback
        self.weight = 1.0
        self._residuals: dict[int, tuple[list[torch.Tensor], pyccl.ErrorFeedback]] = {}

    def reduce(self, bucket: Any) -> torch.futures.Future[Any]:
        """The mean of all ranks' gradients, weighted, in their place."""
        buffer, lent = bucket.buffer(), Lent()
        numbers = as_numbers(lent.change(buffer))
        if self.error_feedback:
            begin = self._compensating(bucket, numbers, lent)
        else:
            begin = self._averaging(numbers, self.quantization)
        what = f"gradients of bucket {bucket.index()}"
        work = self.group._start(what, begin, [buffer], lent, tag=GRADIENTS)
        return work.get_future().then(lambda done: done.value()[0])

    def _averaging(self, values: Any, quantization: Quantization | None) -> Begin:
        weight, group = self.weight, self.group._group
        return lambda call: group.all_reduce(
            values, op="avg", weight=weight, quantization=quantization, **call
        )

    def _compensating(self, bucket: Any, numbers: torch.Tensor, lent: Lent) -> Begin:
        feedback, weight = self._feedback_of(bucket), self.weight
        begun: list[tuple[Any, pyccl.Work[Any]]] = []

        def begin(call: dict[str, Any]) -> Any:
            # Not before: the numbers may be on their way from a device until then.
            step = feedback.begin(numbers)
            work = self._averaging(step.values, step.quantization)({**call, "async_op": True})
            begun.append((step, work))
            return work

        def end() -> None:
            step, work = begun.pop()
            numbers.copy_(torch.from_numpy(step.values))
            if weight > 0:
                step.commit(work.info())

        lent.first(end)
        return begin

    def _feedback_of(self, bucket: Any) -> pyccl.ErrorFeedback:
        """A residual is of certain parameters in a certain order, in which DDP may divide them
        anew."""
        parameters = list(bucket.parameters())
        known, feedback = self._residuals.get(bucket.index(), (None, None))
        if feedback is None or known is None or [*map(id, known)] != [*map(id, parameters)]:
            assert self.quantization is not None
            feedback = pyccl.ErrorFeedback(self.quantization)
            self._residuals[bucket.index()] = parameters, feedback
        return feedback


def ddp_hook(state: DDPState | ProcessGroup, bucket: Any) -> torch.futures.Future[Any]:
    """A communication hook of DistributedDataParallel: gradients become their mean over a group of
    pyccl, whoever is in it when they are added up.

        state = pyccl.torch.DDPState(group, quantization="int8")
        ddp.register_comm_hook(state, pyccl.torch.ddp_hook)

    The group may be another one than that of the module, which then must not communicate by itself
    as ranks come: ElasticDDP sees to that.
    """
    if isinstance(state, ProcessGroup):
        state = DDPState(state)
    return state.reduce(bucket)


# DistributedDataParallel looks at them, and not at their text.
ddp_hook.__annotations__.update(bucket=dist.GradBucket)
ddp_hook.__annotations__["return"] = torch.futures.Future[torch.Tensor]


class ElasticDDP(DistributedDataParallel):  # type: ignore[misc]
    """DistributedDataParallel whose gradients are the mean over an ElasticGroup.

    Making one communicates with nobody, so newcomers make theirs while the others train; sync()
    with pyccl.torch.shared_state() makes the replicas alike. A rank that is lost in the midst of a
    backward pass is left out of the mean, and the step goes on.

    module, group: what to train, and with whom.
    quantization, error_feedback: as in DDPState.
    options: of DistributedDataParallel, but for those about its process group.

    `hook.weight` is this rank's weight in the mean, see DDPState.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        group: ElasticGroup,
        *,
        quantization: Quantization | Codec | None = None,
        error_feedback: bool = False,
        **options: Any,
    ) -> None:
        hook = DDPState(group, quantization=quantization, error_feedback=error_feedback)
        alone = _Alone(group)
        # Who looks for unused parameters never divides them into other buckets: a newcomer would
        # do that after its first step, and alone.
        options.update(find_unused_parameters=True)
        super().__init__(module, process_group=alone, **options)
        self.hook = hook
        self.register_comm_hook(hook, ddp_hook)
        alone.begins = True


class _Alone(dist.ProcessGroup):  # type: ignore[misc]
    """The group that DistributedDataParallel believes to be in.

    While it is made, it is alone. Later it asks its group once in a step, which parameters have
    been used anywhere; that is asked of the members.
    """

    def __init__(self, group: ElasticGroup) -> None:
        super().__init__(0, 1)
        self._elastic = group
        self.begins = False

    def getBackendName(self) -> str:  # noqa: N802 - as C++ calls it
        return "pyccl"

    def allreduce(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        if self.begins:
            return self._elastic.allreduce(tensors, opts)
        return _done(tensors)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        return _done(tensors)

    def allgather(self, outputs: Any, inputs: list[torch.Tensor], opts: Any = None) -> Any:
        for outs, one in zip(outputs, inputs, strict=True):
            outs[0].copy_(one)
        return _done(outputs)

    def barrier(self, opts: Any = None) -> Any:
        return _done([])


def _done(outputs: list[Any]) -> Work:
    def translate(error: PycclError) -> Any:
        return error

    return Work(None, outputs, translate)
