"""Help of commands with many options, in sections."""

from __future__ import annotations

import click

SECTIONS = {
    "The network": ("arch", "model", "like", "input_shape", "part", "unsafe_load"),
    "The data": (
        *("data", "class_index", "download", "sequence_length", "tokenizer", "task"),
        "batch_size",
    ),
    "The sparsifying action": (
        *("ratio", "ratios", "structure", "scope", "criterion", "global_ranking", "heads"),
        "criterion_samples",
        *("blocks", "plan", "after", "regrow", "weights", "rewind_to", "speedup", "stem", "stage"),
    ),
    "The learning rate": (
        *(
            "recipe",
            "recipes",
            "schedule",
            "epochs",
            "lr",
            "shape",
            "min_lr",
            "warmup",
            "extra_epochs",
        ),
        *("pretrain_schedule", "pretrain_epochs"),
    ),
    "The training": (
        *("retrain_lr", "retrain_epochs", "retrain_steps", "retrain_batch_size"),
        *("optimizer", "momentum", "betas", "eps", "weight_decay", "label_smoothing", "clip"),
        *("augment", "precision", "lora", "lora_alpha", "lora_targets"),
    ),
    "The probes": (
        *(
            "probes",
            "probe_epochs",
            "probe_every",
            "top",
            "ggn",
            "exact",
            "norms",
            "samples",
            "dtype",
        ),
    ),
    "How long": ("budget", "count"),
    "Several runs": ("seeds", "workers", "store"),
    "What comes out": (*("output", "as_json", "no_titles", "report_to", "project", "run_name"),),
}
"""The parameters of each section; what is in none comes last."""
REST = "Everything else"


class Sectioned(click.Command):
    """A command whose help has its options in sections, in the order of the table."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections that have an option."""
        records = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx))
        }
        placed = {name for names in SECTIONS.values() for name in names}
        rest = tuple(name for name in records if name not in placed)
        for title, names in (SECTIONS | {REST: rest}).items():
            rows = [records[name] for name in names if name in records]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
