"""One run: the function that every engine calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from trainscope.data import Dataset, RandomInputs, load
from trainscope.diagnosis.opening import Opening, trial_on
from trainscope.errors import DataError, RecordError, StudyError
from trainscope.networks import Network, digest, open_checkpoint
from trainscope.networks.device import find_device
from trainscope.networks.registry import input_shape
from trainscope.probes.hooks.alongside import hook_on
from trainscope.probes.when import at_epochs
from trainscope.records import Kind, Run, files
from trainscope.records.json_text import parse
from trainscope.records.run import FILE_NAME
from trainscope.studies.before import STAGE, START, STEM, measure_start
from trainscope.studies.spec import BaseModel, RunSpec
from trainscope.task import find_task
from trainscope.training.budget import scratch_epochs
from trainscope.training.folder import CHECKPOINT, finished
from trainscope.training.job import Job
from trainscope.training.jobs import retraining_job, run_beside, scratch_job, training_job
from trainscope.training.pipeline import pruning_epoch
from trainscope.training.runner import Watch, run_job
from trainscope.training.stage import pruning_stage
from trainscope.training.staging import run_stage
from trainscope.training.stem import epoch_folder, pretrain

SPEC = "spec.json"
"""The file of a run's folder that says what it is, and that a study made it."""


def execute(
    spec: RunSpec, folder: str | Path, *, device: str = "cpu", watch: Watch | None = None
) -> Run:
    """Do one run in its folder, or go on where it stopped, and return it.

    What it stands on lies beside the folder: the stem, in a folder of its own that all runs with
    this base share, or another run. A run that is done is not repeated; one that another process is
    at work on is waited for.

    Args:
        spec: What to run. The weights of a file get their digest here where it is not known yet.
        folder: Of this run; `Store` names it by the digest.
        device: Where to train and measure, as torch names it.
        watch: What looks on at this training, beside the probes of the spec.

    Returns:
        The Run; "interrupted" after Ctrl-C, with the epochs done till then, which are kept.

    Raises:
        TrainscopeError: What the spec names is not there, does not fit, or cannot be done.
    """
    find_device(device)
    folder, spec = Path(folder), pinned(spec)
    done = _done(spec, folder)
    if done is not None:
        return done
    with files.folder(folder):
        new = not (folder / SPEC).exists()
        if new:
            _write_spec(spec, folder)
        try:
            return _run(spec, folder, device, watch or Watch())
        except BaseException:
            if new and {path.name for path in folder.iterdir()} == {SPEC}:
                (folder / SPEC).unlink()
            raise


def pinned(spec: RunSpec) -> RunSpec:
    """Return a spec whose checkpoints are named by the digests of their weights.

    Raises:
        TrainscopeError: One cannot be opened.
    """
    found = {each: digest_of(each, spec.data, spec.task) for each in spec.files()}
    return spec.pinned(found) if found else spec


def digest_of(base: BaseModel, data: str | None, task: str | None) -> str:
    """Return the digest of a checkpoint's weights.

    Raises:
        TrainscopeError: It cannot be opened.
    """
    network, _ = opened_base(base, data, task)
    return digest(network.module)


def _write_spec(spec: RunSpec, folder: Path) -> None:
    text = json.dumps(spec.as_dict() | {"digest": spec.digest}, indent=2)
    files.write_text(folder / SPEC, text + "\n")


def spec_in(folder: Path) -> RunSpec | None:
    """Return the spec of a run's folder; None where no study made it.

    Raises:
        StudyError: There is a spec, and it is damaged.
    """
    path = folder / SPEC
    if not path.is_file():
        return None
    try:
        raw = parse(path.read_text(encoding="utf-8"))
        raw.pop("digest", None)
    except (OSError, ValueError, AttributeError) as error:
        raise StudyError(f"{path} is damaged: {error}") from error
    return RunSpec.from_dict(raw)


def _done(spec: RunSpec, folder: Path) -> Run | None:
    """Return the Run of a folder that is done; None where there is something left to do."""
    there = spec_in(folder)
    if there is not None and there.digest != spec.digest:
        raise RecordError(f"{folder} holds another run of a study: give another folder")
    return finished(folder) if there is not None and (folder / START).exists() else None


def _run(spec: RunSpec, folder: Path, device: str, watch: Watch) -> Run:
    dense, job = job_of(spec, folder.parent, device=device)
    measure_start(spec, dense, job, folder, device)
    names = spec.probes if spec.probe_epochs else ()
    hook, watched = hook_on(
        job.dataset,
        job.settings,
        names,
        when=at_epochs(*spec.probe_epochs),
        words=f"after epochs {','.join(map(str, spec.probe_epochs))}",
        samples=spec.samples,
        norms=spec.norms,
    )
    if hook is not None:
        watch = replace(watch, collectors=(*watch.collectors, hook))
    return run_job(replace(job, watched=watched), folder, device=device, watch=watch, wait=True)


def job_of(spec: RunSpec, beside: Path, *, device: str = "cpu") -> tuple[Network | None, Job]:
    """Return the base model and the training of a spec; what it stands on is trained before.

    Args:
        spec: It.
        beside: The folder in which runs and stems lie.
        device: Where to train what it stands on.
    """
    settings = spec.trained_with
    if spec.base is None:
        return None, training_job(str(spec.architecture), dataset_of(spec), spec.schedule, settings)
    base, dataset, run, initial = _base_of(spec, beside, device)
    staged = None
    if spec.over is not None and spec.action is not None:
        stage = pruning_stage(
            *(base, dataset, spec.action, spec.over, spec.schedule, settings),
            weights=spec.kind,
            initial=initial,
        )
        folder = beside / f"{STAGE}{spec.stage.key}"
        if not (folder / SPEC).exists():
            _write_spec(spec.stage, folder)
        staged = run_stage(stage, folder, device=device)
    if spec.kind in (Kind.SCRATCH_E, Kind.SCRATCH_B):
        return base, _from_scratch(spec, base, dataset, run)
    job, _ = retraining_job(
        base,
        dataset,
        spec.action,
        spec.schedule,
        settings,
        pretraining=run,
        weights=spec.kind,
        initial=initial,
        staged=staged,
    )
    return base, job


def _from_scratch(spec: RunSpec, base: Network, dataset: Dataset, run: Run | None) -> Job:
    assert spec.action is not None
    assert spec.read is not None
    retraining, done = retraining_job(
        base, dataset, spec.action, spec.schedule, spec.trained_with, pretraining=run
    )
    assert done is not None
    before = retraining.pretraining
    if before is None or before.epochs is None:
        raise StudyError(
            "nothing says how long the base model was trained, so there is no budget for training "
            "from scratch: give a base with an architecture and a recipe"
        )
    epochs = scratch_epochs(
        "epochs" if spec.kind is Kind.SCRATCH_E else "flops",
        pretrain=before.epochs,
        retrain=spec.read.retrain,
        speedup=done.record.speedup,
    )
    schedule = spec.shaped(spec.read.lr, epochs)
    job = scratch_job(retraining.network, dataset, schedule, spec.trained_with, spec.kind)
    return replace(
        job, base=retraining.base, pruning=retraining.pruning, pretraining=retraining.pretraining
    )


def _base_of(
    spec: RunSpec, beside: Path, device: str
) -> tuple[Network, Dataset, Run | None, Network | None]:
    """Return the base model, its data, the Run that made it, and the network at its epoch 0."""
    base = spec.base
    if isinstance(base, RunSpec):
        if base.base is None:
            return _from_stem(spec, base, beside, device)
        folder = beside / base.key
        run = execute(base, folder, device=device)
        left = BaseModel(str(folder / CHECKPOINT), model=base.factory)
        network, dataset = opened_base(left, _data(spec, run), spec.task)
        return network, dataset, run, None
    assert isinstance(base, BaseModel)
    where = base if base.path is not None else found_beside(base, beside)
    network, dataset = opened_base(where, spec.data, spec.task)
    if digest(network.module) != base.digest:
        raise StudyError(
            f"the weights in {where.path} are others than when the study was planned: put the "
            "file back, or plan anew"
        )
    return network, dataset, run_beside(Path(str(where.path)), network), None


def _data(spec: RunSpec, run: Run) -> str | None:
    return spec.data if spec.data is not None else run.data


def _from_stem(
    spec: RunSpec, base: RunSpec, beside: Path, device: str
) -> tuple[Network, Dataset, Run | None, Network | None]:
    first = training_job(str(base.architecture), dataset_of(base), base.schedule, base.trained_with)
    epoch = base.schedule.total
    if spec.read is not None and spec.read.pretrain is not None:
        epoch = spec.read.pretrain
        if spec.read.squeezed and spec.action is not None:
            epoch, _ = pruning_epoch(spec.read, first, spec.action)
    stem = beside / f"{STEM}{base.key}"
    if not (stem / SPEC).exists():
        _write_spec(base, stem)
    kept = pretrain(first, stem, epoch, device=device) / CHECKPOINT
    opened: Callable[[Path], Network] = partial(
        open_checkpoint, model=base.factory, trial=trial_on(first.dataset)
    )
    network = opened(kept)
    dataset = first.dataset if _same_data(spec, base) else dataset_of(spec, network)
    initial = opened(epoch_folder(stem, 0) / CHECKPOINT)
    return network, dataset, run_beside(kept, network), initial


def _same_data(spec: RunSpec, base: RunSpec) -> bool:
    return (spec.data, spec.task) in ((base.data, base.task), (None, base.task))


def dataset_of(spec: RunSpec, network: Network | None = None) -> Dataset:
    """Return the labelled data of a spec.

    Raises:
        DataError: It is not there, or has no labels.
    """
    if spec.data is None:
        raise DataError("a network trained from random weights needs data: name it in the spec")
    shape: tuple[int, ...] = (3, 224, 224)
    if network is not None:
        shape = tuple(network.input_shape)
    elif ":" not in str(spec.architecture):
        shape = input_shape(str(spec.architecture))
    found = load(spec.data, shape, task=None if spec.task is None else find_task(spec.task))
    return _labelled(found, spec.data)


def _labelled(found: Dataset | RandomInputs, name: str | None) -> Dataset:
    if isinstance(found, RandomInputs):
        raise DataError(f"{name or found.name} has no labels to train on: name a labelled set")
    return found


def opened_base(given: BaseModel, data: str | None, task: str | None) -> tuple[Network, Dataset]:
    """Open a checkpoint, and the labelled data that it is trained on.

    Raises:
        TrainscopeError: One of them cannot be opened.
    """
    if given.path is None:
        raise StudyError(f"no path says where the weights {given.digest} are")
    opening = Opening(
        lambda _: None,
        arch=given.arch,
        model=given.model,
        task=None if task is None else find_task(task),
    )
    network, found = opening.network_and_data(Path(given.path).expanduser(), data)
    return network, _labelled(found, data)


def found_beside(base: BaseModel, beside: Path) -> BaseModel:
    """Return the checkpoint of the run beside that ended with these weights.

    Raises:
        StudyError: There is none.
    """
    for path in sorted(beside.glob(f"*/{FILE_NAME}")) + sorted(beside.glob(f"*/*/{FILE_NAME}")):
        if Run.load(path).end == base.digest:
            return replace(base, path=str(path.parent / CHECKPOINT))
    raise StudyError(f"no run in {beside} ended with the weights {base.digest}: give their path")
