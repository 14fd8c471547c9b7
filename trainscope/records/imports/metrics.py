"""Metrics that are known by their names in logs: what they are called, their unit and direction."""

from __future__ import annotations

import re

from trainscope.errors import RecordError
from trainscope.records.imports.names import (
    ACCURACY,
    LOSS,
    TRAIN,
    meaning,
    split_in,
    words_of,
)
from trainscope.records.metric import ACCURACY as TOP1
from trainscope.records.metric import HIGHER, LOWER, Metric
from trainscope.records.metric import LOSS as TEST_LOSS

KNOWN: tuple[tuple[str, Metric], ...] = (
    (r"m?iou|meaniou|jaccard", Metric("mean IoU", "%", HIGHER)),
    (r"dice|dsc", Metric("Dice", "%", HIGHER)),
    (r"f1|f1score|fscore", Metric("F1", "%", HIGHER)),
    (r"auc|auroc|rocauc", Metric("AUC", "%", HIGHER)),
    (r"m?ap(@?\d+)*", Metric("mAP", "%", HIGHER)),
    (r"bleu", Metric("BLEU", "", HIGHER)),
    (r"rouge[l\d]*", Metric("ROUGE", "", HIGHER)),
    (r"ssim", Metric("SSIM", "", HIGHER)),
    (r"r2|rsquared", Metric("R2", "", HIGHER)),
    (r"recall(@?\d+)?", Metric("recall", "%", HIGHER)),
    (r"ndcg(@?\d+)?", Metric("NDCG", "%", HIGHER)),
    (r"mrr", Metric("MRR", "%", HIGHER)),
    (r"psnr", Metric("PSNR", "dB", HIGHER)),
    (r"ppl|perplexity", Metric("perplexity", "", LOWER)),
    (r"bpb", Metric("bits per byte", "", LOWER)),
    (r"bpc", Metric("bits per character", "", LOWER)),
    (r"nll", Metric("negative log-likelihood", "", LOWER)),
    (r"fid", Metric("FID", "", LOWER)),
    (r"lpips", Metric("LPIPS", "", LOWER)),
    (r"eer", Metric("EER", "%", LOWER)),
    (r"rmse", Metric("RMSE", "", LOWER)),
    (r"mse", Metric("MSE", "", LOWER)),
    (r"mae", Metric("MAE", "", LOWER)),
    (r"wer", Metric("WER", "%", LOWER)),
    (r"cer", Metric("CER", "%", LOWER)),
    (r"err|error|err@?1|error@?1", Metric("error", "%", LOWER)),
)
"""By a word of the name in the log. Those in percent may stand there as shares of 1."""


def metric_of(name: str, better: str | None, unit: str | None) -> Metric:
    """Return the metric that a column or entry of a log holds.

    Args:
        name: As the log has it.
        better: "higher" or "lower" where a person said so.
        unit: Its unit, likewise.

    Raises:
        RecordError: It is of training data, or nobody says which direction is better.
    """
    if split_in(name) == TRAIN:
        raise RecordError(
            f"--metric '{name}' is of training data, and a Run's metric is of the test: name one "
            "that is of validation or test data"
        )
    found = known(name)
    if found is None and better is None:
        raise RecordError(
            f"--metric '{name}' does not say by its name which direction is better: add "
            "--better higher or --better lower"
        )
    if found is None:
        found = Metric(_plain(name), "", better or HIGHER)
    return Metric(
        found.name, found.unit if unit is None else unit, found.better if better is None else better
    )


def known(name: str) -> Metric | None:
    """Return the metric of a name that is known by one of its words, None of any other."""
    found = meaning(name)
    if found is not None and found.field in (ACCURACY, LOSS):
        return TOP1 if found.field == ACCURACY else TEST_LOSS
    for word in (*re.split(r"[^a-z0-9@]+", name.lower()), *words_of(name)):
        for pattern, metric in KNOWN:
            if re.fullmatch(pattern, word):
                return metric
    return None


def _plain(name: str) -> str:
    """Return a name in the log without the data that it is of."""
    kept = [word for word in re.split(r"[\s/_:]+", name) if word and not split_in(word)]
    return " ".join(kept) or name
