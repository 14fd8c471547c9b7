"""The pretrained stem: one pretraining that several recipes cut off at their pruning epochs."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from trainscope.errors import CheckpointError, RecordError
from trainscope.records import Run, RunStatus, files
from trainscope.training.folder import CHECKPOINT, EPOCHS, finished, held
from trainscope.training.job import Job, check_fit
from trainscope.training.runner import Training, Watch, write_results
from trainscope.training.state import STATE, State, load_state, save_state


def pretrain(
    job: Job, folder: Path, epoch: int, *, device: str = "cpu", watch: Watch | None = None
) -> Path:
    """Pretrain up to an epoch, from the last kept epoch before it, and keep what comes out.

    `P30F90`, `P60F60` and `P90F30` of one network need one stem: each pruning epoch gets a folder
    `epoch-0030` with `checkpoint.pt`, `run.json` and the state to go on from. `epoch-0000` holds
    the untrained network, which winning tickets are rewound to. Killed, it goes on like `run_job`.
    A checkpoint that is damaged or gone is made again, from the epoch's state where that is whole.

    Args:
        job: The pretraining, with its whole schedule.
        folder: Of the stem.
        epoch: Where to stop, at most the schedule's total.
        device: Where to train, as torch names it.
        watch: What looks on.

    Returns:
        The folder of that epoch.

    Raises:
        RecordError: The folder holds another pretraining, or the pretraining diverged.
        DataError: The data does not fit the network.
    """
    check_fit(job.network, job.dataset)
    out = epoch_folder(folder, epoch)
    with held(folder, job.frozen(), wait=True):  # recipes that run side by side share it
        if not (_kept(out) and _kept(epoch_folder(folder, 0))):
            _pretrain(job, folder, epoch, device, watch or Watch())
        run = Run.load(out)
    if run.status is RunStatus.DIVERGED:
        raise RecordError(
            f"the pretraining kept in {out} diverged, so that there is no network to prune: "
            "pretrain with smaller LRs, in another --stem"
        )
    return out


def _pretrain(job: Job, folder: Path, epoch: int, device: str, watch: Watch) -> None:
    out, rolling = epoch_folder(folder, epoch), folder / f"until-{epoch:04d}.pt"
    training = Training(job.copied(), rolling, device, watch)
    if training.state.epoch == 0:
        _keep_start(job, training, folder, device)
        kept = _last_kept(folder, epoch, training.key)
        if kept is not None:
            training.take_up(kept)
    training.go(epoch)
    save_state(out / STATE, training.state)
    write_results(job, training.state, out, RunStatus.FINISHED, device)
    rolling.unlink(missing_ok=True)


def epoch_folder(folder: Path, epoch: int) -> Path:
    """Return where a stem keeps an epoch."""
    return folder / f"epoch-{epoch:04d}"


def _keep_start(job: Job, training: Training, folder: Path, device: str) -> None:
    start = epoch_folder(folder, 0)
    if not _kept(start):
        with files.folder(start):
            write_results(job, training.fresh_state(), start, RunStatus.FINISHED, device)


def _kept(folder: Path) -> bool:
    """Tell whether an epoch is done and its checkpoint can be read from end to end."""
    run = finished(folder)
    if run is None or run.status is RunStatus.DIVERGED:  # which leaves no checkpoint
        return run is not None
    try:
        with zipfile.ZipFile(folder / CHECKPOINT) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError):
        return False


def _last_kept(folder: Path, epoch: int, key: str) -> State | None:
    """Return the last kept state up to an epoch that can be read."""
    kept = {int(path.parent.name.removeprefix("epoch-")): path for path in _states(folder)}
    for number in sorted((each for each in kept if each <= epoch), reverse=True):
        try:
            return load_state(kept[number], key)
        except CheckpointError:  # damaged: an earlier one is trained further
            continue
    return None


def _states(folder: Path) -> list[Path]:
    return list(folder.glob(f"{EPOCHS}/{STATE}"))
