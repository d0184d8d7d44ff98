"""Compares forms of one model: CPU time, likeness to the float form, dependence on company.

usage: python tests/benchmarks/int8_models.py [--turns N] FLOAT_MODEL USUAL_INT8 [OTHER …]

CPU time is that of this thread, in the batches that the batch former makes of a deep backlog: sorted
by length, 8 rows and 256 padded tokens at most. Models take turns of 8 batches, so that what slows
the machine slows all; ratios are to USUAL_INT8 within a turn, and their median counts.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence

import numpy as np

from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.loadtest.corpus import paragraphs
from cortex_stream.registry.store import ModelStore
from cortex_stream.settings.sections import InferenceSettings
from cortex_stream.settings.tree import load_settings

ROWS, PADDED_TOKENS, COMPANY_ROWS = 8, 256, 16
BATCHES_PER_TURN, TEXTS_IN_COMPANY = 8, 320


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--turns", type=int, default=60)
    words = parser.parse_args()
    store = ModelStore(load_settings().models)
    settings = InferenceSettings(runners=1, provider="cpu")
    models = {name: load_model(store.resolve(name), settings) for name in words.models}
    texts = [text for text in paragraphs() if 40 < len(text) < 1200]
    tokens = models[words.models[0]].tokenizer.encode(texts)
    print(f"{len(texts)} paragraphs of {np.mean([row.tokens for row in tokens]):.0f} tokens")
    batches = sorted_batches(tokens)
    times = cpu_times(models, tokens, batches, turns=words.turns)
    wanted = embed(models[words.models[0]], tokens, batches)
    for name, model in models.items():
        cosines = np.einsum("rd,rd->r", embed(model, tokens, batches), wanted)
        ratio = statistics.median(
            mine / usual for mine, usual in zip(times[name], times[words.models[1]], strict=True)
        )
        print(
            f"{name}: {1000 * statistics.median(times[name]):.2f} ms a text, {ratio:.2f} x;"
            f" cosine mean {cosines.mean():.4f} min {cosines.min():.4f};"
            f" in company {in_company(model, tokens):.1e}"
        )


def sorted_batches(tokens: Sequence[TokenRow]) -> list[list[int]]:
    """Return indices of `tokens`, shortest first, cut as the batch former cuts them."""
    batches: list[list[int]] = [[]]
    for index in sorted(range(len(tokens)), key=lambda index: tokens[index].tokens):
        rows = len(batches[-1]) + 1
        if rows > ROWS or (rows > 1 and rows * tokens[index].tokens > PADDED_TOKENS):
            batches.append([])
        batches[-1].append(index)
    return batches


def cpu_times(
    models: dict[str, LoadedModel],
    tokens: Sequence[TokenRow],
    batches: Sequence[list[int]],
    *,
    turns: int,
) -> dict[str, list[float]]:
    """Return CPU seconds per text of each model in each turn."""
    times: dict[str, list[float]] = {name: [] for name in models}
    orders = itertools.cycle(itertools.permutations(models))
    step = max(1, len(batches) // BATCHES_PER_TURN)
    for turn in range(turns):
        chosen = batches[turn % step :: step]
        for name in next(orders):
            begun_s = time.thread_time()
            embed(models[name], tokens, chosen)
            times[name].append((time.thread_time() - begun_s) / sum(map(len, chosen)))
    return times


def embed(
    model: LoadedModel, tokens: Sequence[TokenRow], batches: Sequence[Sequence[int]]
) -> FloatRows:
    """Return the vectors of `tokens`, zero where no batch names them."""
    vectors = np.zeros((len(tokens), model.runners[0].width), np.float32)
    for batch in batches:
        vectors[list(batch)] = model.runners[0].run([tokens[index] for index in batch])
    return vectors


def in_company(model: LoadedModel, tokens: Sequence[TokenRow]) -> float:
    """Return the largest difference between texts alone and in random company."""
    some = np.random.default_rng(1).permutation(len(tokens))[:TEXTS_IN_COMPANY].tolist()
    alone = embed(model, tokens, [[index] for index in some])
    together = embed(
        model, tokens, [some[at : at + COMPANY_ROWS] for at in range(0, len(some), COMPANY_ROWS)]
    )
    return float(np.abs(alone - together).max())


if __name__ == "__main__":
    main()
