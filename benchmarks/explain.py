"""What does it cost to explain a thousand predictions, in pictures and in words, beside the forward passes that they contain?"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.timing import bench_row, forward_seconds, register
from niwt_nb.explain.explainer import fit_explainer
from niwt_nb.explain.maps import fine_map
from niwt_nb.explain.sentences import sentence
from niwt_nb.explain.words import explain_images
from niwt_nb.fieldguide.world import field_guide
from niwt_nb.network.backbones import field_guide_transform, load_backbone


def bench_explain(
    images: int = 1000,  # how many are explained
    repeats: int = 3,  # the median of so many rounds
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Seconds for map and words of field-guide images, drawing included, beside bare forward passes."
    data, backbone = field_guide(), load_backbone()
    network, test = backbone.cut(), torch.cat([data.test_seen, data.test_unseen])[:images]
    explainer = fit_explainer(network, data, field_guide_transform)
    x = torch.stack([field_guide_transform(data.images[int(i)]) for i in test])

    def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
        taken, result = [], None
        for _ in range(repeats):
            started = time.perf_counter()
            result = function()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken), result

    bare = forward_seconds(network, x[:64]) * len(test)
    whole, told = seconds(lambda: explain_images(explainer, data, test, field_guide_transform))
    speak = seconds(lambda: [sentence(told.frame(explainer, i)) for i in range(len(told))])[0]
    sharp = seconds(
        lambda: [
            fine_map(explainer.network, part, told.row[64 * i : 64 * i + len(part)])
            for i, part in enumerate(x.split(64))
        ]
    )[0]
    peer = f"bare forward, {len(test)} images"
    steps = {
        "map, words and faithfulness, drawing included": whole,
        "sentences and tables": speak,
        "fine maps": sharp,
        "all together": whole + speak + sharp,
    }
    return [
        bench_row(
            f"explaining {len(test)} images: {case}", "wall time", "s", value, peer, bare, repeats
        )
        for case, value in steps.items()
    ]


@register("explain")
def explain_bench(
    quiet: bool = False,  # no progress on the screen (there is none)
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "`bench_explain` with its defaults, for `python -m benchmarks explain`."
    return bench_explain()
