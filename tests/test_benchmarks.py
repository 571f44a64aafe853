import importlib.util
import json

import jax
import numpy as np
import pytest

from benchmarks import subjects, training
from benchmarks.subjects import Layer
from benchmarks.training import Case, Measured, PeerRow, Row, Settings
from deepsvdd_jax.networks import build_network

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)

MNIST = subjects.SUBJECTS["mnist_lenet"]
MACHINE = {
    "processor": "Some CPU",
    "system": "Some system",
    "cores": 2,
    "jax": "0.0",
    "torch": None,
    "devices": "2 x cpu",
    "peak_flops": 2e11,
}
ROW = Row("mnist_lenet", "one-class", 6000, 4, 2, 0.25, None, None, 0.05)


# --- operations ---------------------------------------------------------------------------------


def test_operations_of_a_convolution_by_hand():
    # 3x3 outputs, each 2x2x5 products and as many additions for each of 7 features.
    layer = Layer("convolution", 5, 7, side=3, kernel=2)
    assert training.layer_flops(layer) == 2 * (2 * 2 * 5) * 7 * (3 * 3)


def test_operations_of_a_dense_layer_by_hand():
    assert training.layer_flops(Layer("dense", 196, 32)) == 2 * 196 * 32
    assert training.layer_flops(Layer("reshape", 32, 2, 4)) == 0


def test_first_layer_has_no_gradient_of_its_input():
    first, second = Layer("dense", 10, 5), Layer("dense", 5, 2)
    assert training.training_flops([first, second]) == 2 * (2 * 10 * 5) + 3 * (2 * 5 * 2)


def test_operations_of_mnist_lenet_by_hand():
    layers = subjects.encoder_layers(MNIST.config, MNIST.shape)
    first = second = 2 * 25 * 8 * 28**2
    assert second == 2 * 25 * 8 * 4 * 14**2
    assert training.training_flops(layers) == 2 * first + 3 * second + 3 * 2 * 196 * 32


def test_valid_convolutions_shrink_the_map():
    subject = subjects.SUBJECTS["itu_cnn"]
    layers = subjects.encoder_layers(subject.config, subject.shape)
    assert [layer.side for layer in layers] == [26, 11, 1]
    assert layers[-1].inputs == 5 * 5 * 64


# --- the peer's network is ours ------------------------------------------------------------------


def our_kernel_sizes(subject: subjects.Subject, objective: str) -> list[int]:
    network = build_network(subject.config, subject.shape)
    key = jax.random.key(0)
    params, _ = jax.eval_shape(lambda: network.init(key, objective == "autoencoder"))
    return sorted(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params) if leaf.ndim > 1)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("mnist_lenet", "autoencoder"),
        ("cifar10_lenet", "autoencoder"),
        ("mlp", "autoencoder"),
        ("itu_cnn", "one-class"),
    ],
)
def test_layers_have_the_kernels_of_our_network(name, objective):
    subject = subjects.SUBJECTS[name]
    layers = training.network_layers(subject.config, subject.shape, objective)
    sizes = [
        layer.kernel**2 * layer.inputs * layer.outputs
        for layer in layers
        if layer.kind in ("convolution", "dense")
    ]
    assert sorted(sizes) == our_kernel_sizes(subject, objective)


@pytest.fixture
def torch_peer():
    """The module, on one thread: two for a few images would wait for each other."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from benchmarks import torch_peer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch_peer
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("mnist_lenet", "autoencoder"),
        ("cifar10_lenet", "autoencoder"),
        ("itu_cnn", "one-class"),
        ("mlp", "soft-boundary"),
        ("mlp", "autoencoder"),
    ],
)
def test_peer_trains(torch_peer, name, objective):
    task = training.peer_task(Case(name, objective, 6)) | {"batch_size": 4}
    task = json.loads(json.dumps(task))
    trainer = torch_peer.answer(None, {"task": task})
    before = [value.detach().clone() for value in trainer.network.parameters()]
    outputs = trainer.network(trainer.images)
    subject = subjects.SUBJECTS[name]
    wanted = task["shape"] if objective == "autoencoder" else [subject.config.rep_dim]
    assert list(outputs.shape[1:]) == wanted
    torch_peer.answer(trainer, {"epochs": 1})
    after = trainer.network.parameters()
    assert all((old != new).any() for old, new in zip(before, after, strict=True))


def test_peer_answers_every_line(torch_peer):
    said = []
    requests = [{"task": training.peer_task(Case("mlp", "one-class", 4))}, {"epochs": 1}]
    torch_peer.serve(iter(map(json.dumps, requests)), said.append)
    assert said == ["done", "done"]


@pytest.mark.parametrize(
    ("name", "objective"),
    [("mnist_lenet", "autoencoder"), ("mnist_lenet", "one-class"), ("mlp", "one-class")],
)
def test_an_ensemble_of_the_peer_is_as_many_models_on_their_own(
    torch_peer, name, objective, monkeypatch
):
    import torch

    monkeypatch.setattr(torch_peer, "WARM_UP_STEPS", 0)
    task = training.peer_task(Case(name, objective, 12)) | {"batch_size": 4}
    ensemble = torch_peer.make_trainer(task | {"mode": "ensemble", "models": 3})
    batches = ensemble.batches()
    assert [batch.shape for batch in batches] == [(3, 4)] * 3
    assert all(
        torch.cat(batches, 1)[model].sort().values.tolist() == [*range(12)] for model in (0, 2)
    )
    alone = []
    for model in range(3):
        module = torch_peer.build_module(task["layers"]).train()
        module.load_state_dict(
            {key: value[model].clone() for key, value in ensemble.params.items()}, strict=False
        )
        alone.append(module)
    center = ensemble.center.clone()
    for batch in batches:
        ensemble.step(batch)
    for model, module in enumerate(alone):
        optimizer = torch.optim.Adam(
            module.parameters(), lr=1e-4, weight_decay=task["weight_decay"]
        )
        for batch in batches:
            images = ensemble.images[batch[model]]
            outputs = module(images)
            wanted = images if objective == "autoencoder" else center[model]
            loss = (outputs - wanted).square().flatten(1).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for key, value in module.named_parameters():
            torch.testing.assert_close(ensemble.params[key][model], value.detach())


def test_ways_that_do_not_work_here_are_said(torch_peer):
    said = []
    task = training.peer_task(Case("mlp", "soft-boundary", 4))
    requests = [{"task": task | {"mode": mode}} for mode in ("graph", "ensemble", "fast")]
    torch_peer.serve(iter(map(json.dumps, requests)), said.append)
    assert said[0] == "RuntimeError: a CUDA graph needs a GPU"
    assert "one-class or autoencoder" in said[1]
    assert said[2].endswith("mode is 'fast'; allowed: loop, compiled, graph, ensemble")


# --- rounds and report --------------------------------------------------------------------------


def test_devices_divide_the_runs():
    programs = map(training.Program, (1, 2, 3, 6, 8))
    assert [training.devices_for(program, 4) for program in programs] == [1, 2, 3, 3, 4]


def test_a_lone_run_is_measured_with_its_batches_split_too():
    alone, split = training.Program(1), training.Program(1, 4)
    assert training.programs_of((1, 2), 4) == (alone, split, training.Program(2))
    assert training.programs_of((1,), 1) == training.programs_of((1,), 3) == (alone,)
    assert training.devices_for(split, 4) == 4
    assert alone.name != split.name


def test_timers_take_turns_and_the_smallest_time_counts():
    asked, told = [], []
    times = iter([3.0, 5.0, 2.0, 6.0])

    def timer(epochs: int) -> float:
        asked.append(epochs)
        return next(times)

    found = training.smallest_times(
        {"peer": timer, "ours": timer}, 7, 2, lambda turn, name: told.append((turn, name))
    )
    assert found == {"peer": 2.0, "ours": 5.0}
    assert told == [(1, "peer"), (1, "ours"), (2, "peer"), (2, "ours")]
    assert asked == [7] * 4
    assert training.take_turns("ab", "1234") == ["a", "1", "b", "2", "3", "4"]


def test_short_epochs_are_timed_together():
    assert training.epochs_per_timing(10.0) == 1
    assert training.epochs_per_timing(0.1) == 4
    assert training.epochs_per_timing(1e-5) == 25


def test_rows_compare_with_the_better_peer():
    case = Case("mlp", "one-class", 1000)
    seconds = {"one thread": 6.0, "all threads": 4.0, "processes": 3.0, "runs=2": 2.0}
    settings = Settings((case,), (2,), 2)
    flops = 1000 * 2 * (2 * 64 * 128 + 3 * 128 * 64 + 3 * 64 * 32)
    (row,) = training.rows_of(Measured(case, seconds), settings, peak=1e9)
    assert (row.torch_ratio, row.processes_ratio, row.devices) == (2.0, 1.5, 2)
    assert row.peak_share == pytest.approx(flops / 2.0 / 1e9)
    assert training.peer_row(Measured(case, seconds)) == PeerRow(*case[:2], 6.0, 4.0, 3.0)


def test_report_without_torch_says_how_to_install_it():
    text = training.format_report(MACHINE, [ROW], [], repeats=3)
    table = text.splitlines()
    assert table[1] == "float32 matrix product: 200 GFLOP/s; every time is the smallest of 3 rounds"
    assert table[5].split() == ["mnist_lenet", "one-class", "6000", "4", "2", "0.2500", "5.0%"]
    assert table[-1].endswith("pip install 'deepsvdd_jax[benchmark]'")


def test_report_with_torch_has_its_table():
    peers = [PeerRow("mnist_lenet", "one-class", 0.5, None, 0.25)]
    rows = [ROW._replace(torch_ratio=2.0, processes_ratio=1.0)]
    table = training.format_report(MACHINE | {"torch": "2.0"}, rows, peers, 3).splitlines()
    assert table[5].split()[5:] == ["0.2500", "2.00", "1.00", "5.0%"]
    assert table[-1].split() == ["mnist_lenet", "one-class", "0.5000", "0.2500"]
    assert len({len(line) for line in table[3:6]}) == 1


def test_json_holds_machine_and_rows():
    text = training.as_json(MACHINE, [ROW], [], Settings((), (4,), 2))
    report = json.loads(text)
    assert report["machine"] == MACHINE
    assert report["rows"] == [ROW._asdict()]
    assert report["settings"]["statistic"] == "minimum"


# --- flags --------------------------------------------------------------------------------------


def test_cases_of_the_defaults():
    assert training.cases_of(["mnist_lenet", "cifar10_lenet"], [], None) == (
        Case("mnist_lenet", "one-class", 6000),
        Case("mnist_lenet", "autoencoder", 6000),
        Case("cifar10_lenet", "one-class", subjects.SUBJECTS["cifar10_lenet"].images),
    )


@pytest.mark.parametrize(
    ("networks", "objectives", "message"),
    [
        (["resnet"], [], "'resnet' is unknown; allowed: mnist_lenet"),
        (["mlp"], ["svm"], "'svm' is unknown; allowed: one-class"),
        (["itu_cnn"], ["autoencoder"], "itu_cnn has no decoder"),
    ],
)
def test_wrong_names_are_refused(networks, objectives, message):
    with pytest.raises(training.BenchmarkError, match=message):
        training.cases_of(networks, objectives, None)


@pytest.mark.parametrize("values", [[], ["0"], ["two"], ["-1"]])
def test_numbers_must_be_positive(values):
    with pytest.raises(training.BenchmarkError, match="--runs"):
        training.positive("runs", values)


# --- from end to end ----------------------------------------------------------------------------


@pytest.mark.slow
def test_measures_a_lone_run_without_torch(capsys):
    case = Case("mlp", "one-class", 64)
    settings = Settings((case,), (1,), 2, repeats=2, epochs=1)
    (measured,) = training.measure(settings)
    assert set(measured.seconds) == {"runs=1", "runs=1 split over 2", "peak"}
    _, (row, split), peers = training.results([measured], settings)
    assert peers == []
    assert (row.runs, row.devices, split.runs, split.devices) == (1, 1, 1, 2)
    assert split.seconds > 0.0
    assert row.seconds > 0.0
    assert 0.0 < row.peak_share < 1.0
    assert row.torch_ratio is None
    shown = capsys.readouterr().err
    total = training.steps_of(settings)
    assert shown.splitlines()[-1] == f"{total}/{total} done"


@pytest.mark.parametrize("objective", training.OBJECTIVES)
def test_configuration_trains_the_objective(objective):
    config = training.run_config(Case("mnist_lenet", objective, 64))
    if objective == "autoencoder":
        phase = config.pretraining
        assert phase.objective.kind == "reconstruction"
    else:
        phase = config.training
        assert phase.objective.kind == objective
    assert (phase.batch_size, phase.optimizer.name) == (200, "adam")


def test_machine_is_described():
    machine = training.describe_machine(2, 1e11)
    assert machine["jax"] == jax.__version__
    assert machine["devices"].startswith("2 x ")
    assert json.loads(json.dumps(machine)) == machine


@needs_torch
def test_workers_answer_report_a_failure_and_end():
    with training.open_peers(True, 1) as peers:
        assert peers.wide is None
        timers = training.peer_timers(peers, Case("mlp", "one-class", 8))
        assert timers["one thread"](1) > 0.0
        with pytest.raises(RuntimeError, match="ended early"):
            training.ask(peers.narrow, {"nonsense": 1})
    assert all(worker.poll() is not None for worker in peers.narrow)
