"""Train a small GPT on the standard library's own text, and save it as a hub's folder.

There is no language model small enough for a laptop among the packages, so this makes one: a GPT-2
of 1.6 M weights, trained for ten minutes on one thread on the sources of Python's standard library.
The folder has what a hub's has (config.json, safetensors, tokenizer), and the text beside it:

    python benchmarks/language_model.py gpt --minutes 10
    trainscope probe gpt --data text:gpt/stdlib.txt --structure 2:4 \
        --retrain-lr 1e-1,1e-2,1e-3 --retrain-steps 50 --output diagnosis
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from library_text import text_of_the_library
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from trainscope.data import Reading, load

VOCABULARY, LENGTH, BATCH, LR = 2048, 128, 16, 2e-3
END = "<|endoftext|>"


def save_tokenizer(text: str, folder: Path) -> None:
    """Learn byte pairs of the training half of a text, and save the tokenizer."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(text[: len(text) * 9 // 10].split("\n\n"), trainer)
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, bos_token=END).save_pretrained(
        folder
    )


def train(folder: Path, minutes: float, seed: int = 0) -> GPT2LMHeadModel:
    """Train on the training half of the text in a folder, as `text:` divides it."""
    data = load(f"text:{folder / 'stdlib.txt'}", (), reading=Reading(folder, VOCABULARY, LENGTH))
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=160,
        n_layer=4,
        n_head=5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), LR, betas=(0.9, 0.95), weight_decay=0.1)
    drawn = torch.Generator().manual_seed(seed)
    begun, step = time.monotonic(), 0
    while (share := (time.monotonic() - begun) / (60 * minutes)) < 1:
        rate = LR * min(1, (step + 1) / 50) * (0.525 + 0.475 * math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids = data.train.batch(torch.randint(len(data.train), (BATCH,), generator=drawn))
        logits = model(input_ids=ids["input_ids"]).logits
        loss = data.task.losses(logits, ids).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}, {time.monotonic() - begun:.0f} s, loss {loss.item():.3f}")
        step += 1
    return model.eval()


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.folder.mkdir(parents=True, exist_ok=True)
    text = text_of_the_library(6_000_000)
    (asked.folder / "stdlib.txt").write_text(text, "utf-8")
    save_tokenizer(text, asked.folder)
    train(asked.folder, asked.minutes).save_pretrained(asked.folder)


if __name__ == "__main__":
    main()
