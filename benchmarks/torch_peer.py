"""The PyTorch loop that the training benchmark measures beside ours, in a process of its own.

Reads JSON lines from stdin and answers each with a line: `{"task": ...}` builds a network and warms
it up, `{"epochs": n}` trains it, `{"memory": true}` asks for the bytes at the peak. On a GPU where
PyTorch has one. Started by `benchmarks.training`, which also keeps the time. A task's `mode` is one
of `MODES`, the ways in which PyTorch can train such a network.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, func, nn

from benchmarks.memory import process_peak_bytes

NU = 0.1
LEAKY_SLOPE = 0.01
WARM_UP_STEPS = 3
# A step from Python, with `torch.compile`, as one CUDA graph, and of many models under vmap.
MODES = ("loop", "compiled", "graph", "ensemble")


class CodeToImage(nn.Module):
    """Reshapes embeddings `[n, d]` to small images `[n, channels, side, side]`."""

    def __init__(self, side: int, channels: int):
        super().__init__()
        self.shape = (channels, side, side)

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings.reshape(embeddings.shape[0], *self.shape)


def activation(name: str) -> list[nn.Module]:
    """Returns the modules of an activation, none for `linear`."""
    choices: dict[str, list[nn.Module]] = {
        "linear": [],
        "relu": [nn.ReLU()],
        "leaky_relu": [nn.LeakyReLU(LEAKY_SLOPE)],
        "sigmoid": [nn.Sigmoid()],
    }
    return choices[name]


def convolution_modules(layer: dict[str, Any]) -> Iterator[nn.Module]:
    """Yields the modules of a convolution and of the operations before and after it."""
    if layer["upsample"]:
        yield nn.Upsample(scale_factor=2)
    yield nn.Conv2d(
        layer["inputs"],
        layer["outputs"],
        layer["kernel"],
        padding=layer["padding"],
        bias=layer["bias"],
    )
    if layer["normalize"]:
        yield nn.BatchNorm2d(layer["outputs"], eps=1e-4, affine=False)
    yield from activation(layer["activation"])
    if layer["pool"]:
        yield nn.MaxPool2d(2)


def layer_modules(layer: dict[str, Any]) -> Iterator[nn.Module]:
    """Yields the modules of one layer of `benchmarks.training`."""
    if layer["kind"] == "convolution":
        yield from convolution_modules(layer)
    elif layer["kind"] == "reshape":
        yield CodeToImage(layer["side"], layer["outputs"])
        yield from activation(layer["activation"])
    elif layer["kind"] == "dense":
        yield nn.Flatten()
        yield nn.Linear(layer["inputs"], layer["outputs"], bias=layer["bias"])
        yield from activation(layer["activation"])
    else:
        yield from activation(layer["activation"])


def build_module(layers: list[dict[str, Any]]) -> nn.Sequential:
    """Returns the network of a list of layers."""
    return nn.Sequential(*(module for layer in layers for module in layer_modules(layer)))


def initial_center(network: nn.Module, images: Tensor) -> Tensor:
    """Returns the mean embedding of the first images, no component closer to 0 than 0.1."""
    with torch.no_grad():
        center = network(images).mean(0)
    return torch.where(center < 0, center.clamp(max=-0.1), center.clamp(min=0.1))


def faster_layout(images: Tensor) -> Tensor:
    """Returns images or kernels with the channels last in memory, all else as it is."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


class Trainer:
    """Adam on one objective, all images in memory.

    Args:
      task: `layers`, `objective`, `shape` of an image as channels first, `images`, `batch_size`
        and `weight_decay`; `mode` is `compiled` where the network is to go through `torch.compile`.
    """

    # Of Adam: a CUDA graph needs a count of steps that lies on the GPU.
    capturable = False

    def __init__(self, task: dict[str, Any]):
        torch.manual_seed(0)
        self.objective, self.batch_size = task["objective"], task["batch_size"]
        # Channels last and the fused solver are PyTorch's faster choices on a CPU: the comparison
        # is with the better loop, not the plainest.
        device = best_device()
        self.images = faster_layout(torch.rand(task["images"], *task["shape"])).to(device)
        self.network = build_module(task["layers"]).train().to(device)
        for parameter in self.network.parameters():
            parameter.data = faster_layout(parameter.data)
        if task.get("mode") == "compiled":
            self.network.compile()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=1e-4,
            weight_decay=task["weight_decay"],
            fused=True,
            capturable=self.capturable,
        )
        self.center = initial_center(self.network, self.images[: self.batch_size])
        self.squared_radius = torch.zeros((), device=device)
        for batch in self.batches()[:WARM_UP_STEPS]:
            self.step(batch)

    def batches(self) -> list[Tensor]:
        """Returns the indices of an epoch's batches, in random order."""
        order = torch.randperm(self.images.shape[0], device=self.images.device)
        return list(order.split(self.batch_size))

    def loss(self, images: Tensor) -> Tensor:
        """Returns the objective on a batch; a soft boundary takes its radius from the batch."""
        outputs = self.network(images)
        if self.objective == "autoencoder":
            return (outputs - images).square().flatten(1).sum(1).mean()
        distances = (outputs - self.center).square().sum(1)
        if self.objective == "one-class":
            return distances.mean()
        loss = self.squared_radius + (distances - self.squared_radius).relu().mean() / NU
        self.squared_radius = torch.quantile(distances.detach(), 1.0 - NU)
        return loss

    def step(self, batch: Tensor) -> None:
        """One optimiser step on the images at some indices."""
        self.optimizer.zero_grad()
        self.loss(self.images[batch]).backward()
        self.optimizer.step()

    def epoch(self) -> None:
        """One pass over all images."""
        for batch in self.batches():
            self.step(batch)


class GraphTrainer(Trainer):
    """A step captured as one CUDA graph, which Python then starts as a whole."""

    capturable = True

    def __init__(self, task: dict[str, Any]):
        if not torch.cuda.is_available():
            raise RuntimeError("a CUDA graph needs a GPU")
        self.graph: torch.cuda.CUDAGraph | None = None
        super().__init__(task)
        self.places = torch.zeros(self.batch_size, dtype=torch.int64, device=self.images.device)
        # PyTorch's documentation asks for a few steps on another stream first.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for batch in self.batches()[:WARM_UP_STEPS]:
                super().step(batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(graph):
            super().step(self.places)
        self.graph = graph

    def batches(self) -> list[Tensor]:
        """Returns whole batches only: a graph has one size."""
        return [batch for batch in super().batches() if len(batch) == self.batch_size]

    def step(self, batch: Tensor) -> None:
        """One optimiser step: the captured one, once there is one."""
        if self.graph is None:
            super().step(batch)
            return
        self.places.copy_(batch)
        self.graph.replay()


class EnsembleTrainer:
    """Many networks trained side by side by `torch.func`, each on batches of its own.

    Args:
      task: as of `Trainer`; `models` says how many.
    """

    def __init__(self, task: dict[str, Any]):
        torch.manual_seed(0)
        self.objective, self.batch_size = task["objective"], task["batch_size"]
        if self.objective == "soft-boundary":
            raise RuntimeError("the ensemble has no radius: one-class or autoencoder")
        device = best_device()
        self.images = torch.rand(task["images"], *task["shape"]).to(device)
        models = [build_module(task["layers"]).train().to(device) for _ in range(task["models"])]
        for model in models:
            # Running statistics take no part in training, and vmap cannot write them.
            func.replace_all_batch_norm_modules_(model)
        first = self.images[: self.batch_size]
        self.center = torch.stack([initial_center(model, first) for model in models])
        self.network = models[0]
        params, self.buffers = func.stack_module_state(models)
        # `func.grad` makes the gradients: nothing is to be recorded beside it.
        self.params = {name: parameter.detach() for name, parameter in params.items()}
        self.optimizer = torch.optim.Adam(
            list(self.params.values()), lr=1e-4, weight_decay=task["weight_decay"], fused=True
        )
        self.gradients = func.vmap(func.grad(self.loss))
        for batch in self.batches()[:WARM_UP_STEPS]:
            self.step(batch)

    def batches(self) -> list[Tensor]:
        """Returns the indices `[models, batch]` of an epoch's batches, each model's in its own
        random order."""
        draws = torch.rand(len(self.center), self.images.shape[0], device=self.images.device)
        return list(draws.argsort(1).split(self.batch_size, dim=1))

    def loss(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], center: Tensor, images: Tensor
    ) -> Tensor:
        """Returns the objective of one model on a batch."""
        outputs = func.functional_call(self.network, (params, buffers), (images,))
        if self.objective == "autoencoder":
            return (outputs - images).square().flatten(1).sum(1).mean()
        return (outputs - center).square().sum(1).mean()

    def step(self, batch: Tensor) -> None:
        """One optimiser step of every model, on the images at some indices `[models, batch]`."""
        found = self.gradients(self.params, self.buffers, self.center, self.images[batch])
        for name, parameter in self.params.items():
            parameter.grad = found[name]
        self.optimizer.step()

    def epoch(self) -> None:
        """One pass of every model over all images."""
        for batch in self.batches():
            self.step(batch)


def make_trainer(task: dict[str, Any]) -> Trainer | EnsembleTrainer:
    """Returns the trainer of a task's mode, a loop by default."""
    mode = task.get("mode", "loop")
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; allowed: {', '.join(MODES)}")
    if mode == "ensemble":
        return EnsembleTrainer(task)
    return GraphTrainer(task) if mode == "graph" else Trainer(task)


def answer(
    trainer: Trainer | EnsembleTrainer | None, request: dict[str, Any]
) -> Trainer | EnsembleTrainer:
    """Answers a request and returns the trainer for the next one."""
    if "task" in request:
        return make_trainer(request["task"])
    assert trainer is not None
    for _ in range(request["epochs"]):
        trainer.epoch()
    if trainer.images.is_cuda:
        torch.cuda.synchronize()
    return trainer


def best_device() -> str:
    """Returns the device on which PyTorch is fastest; asks the system."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_bytes() -> int:
    """Returns the most memory held so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return process_peak_bytes()


def serve(requests: Iterator[str], say: Callable[[str], None]) -> None:
    """Answers requests, one a line, until there are no more.

    A task whose mode does not work here is answered with the reason, and the next may be another.
    """
    trainer = None
    for line in requests:
        request = json.loads(line)
        if "memory" in request:
            say(str(peak_bytes()))
            continue
        try:
            trainer = answer(trainer, request)
        except Exception as error:
            if request.get("task", {}).get("mode", "loop") == "loop":
                raise
            say(f"{type(error).__name__}: {' '.join(str(error).split()):.200}")
            continue
        say("done")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    serve(iter(sys.stdin), lambda text: print(text, flush=True))
