"""The base model's card, written from what was measured and from nothing else. `models.pretraining.shipping` stores it."""

from typing import Any

from models.pretraining.data import FER2013, FERPLUS

TITLES = {FERPLUS: "FER+ majority (M8), eight classes", FER2013: "FER2013, seven classes"}
CURVE_ROWS = 12
"""Of the learning curve's table, at most."""

SPLITS = {"validation": "PublicTest", "test": "PrivateTest"}

DATA = """## Data

Trained on the Training rows of FER2013 (Goodfellow et al. 2013, arXiv:1307.0414) with two kinds of labels at once: the original
seven classes, which came from image-search words, and the votes of ten people from FER+ (Barsoum et al. 2016, arXiv:1608.01041).
Rows that are all black are left out. Single votes count as outliers and are zeroed, as in the FER+ reference code.
PublicTest was looked at during training, PrivateTest only where it ended (once for each time that it was lengthened).
No picture is in this repository."""

COPIES = """The data set holds some pictures more than once: {validation:,} faces of PublicTest and {test:,} of PrivateTest are
pixel for pixel in Training too, so the model has seen them, mostly with the same label. The official split counts them, and so
do others' figures; the rows "without copies" do not, and say better what the model makes of faces that it has not seen."""

PROTOCOL = """## Protocol

"FER+ majority (M8)": a row counts if its largest remaining vote is one of the eight emotions and more than half of what
remains. "FER2013": all rows, original labels. Accuracy is of single crops, one forward pass, no averaging over flips.
Balanced accuracy is the mean of the classes' recalls: what a shift of class frequencies alone cannot raise. The calibration error
is the expected distance between stated confidence and accuracy, over 15 bins of equal width (Guo et al. 2017). The FER+ head
learned the shares of the votes, so where people disagree it states less confidence than the majority's label would ask for."""

BIASES = """## Known biases and limits

- It names what ten onlookers would say a face shows, not what a person feels. People disagree: one training row in eight has no
  majority for any of the eight emotions.
- The pictures come from an image search: many are posed, and many show actors or stock photographs.
- No row says anything about age, sex, skin colour or origin, so it was not measured for whom the model works worse. That it
  works equally well for all must not be assumed; face models trained on such pictures usually do not.
- {rare} are the rarest in training ({counts}); {worst} are recognised worst (recall {recalls} on PrivateTest).
- FER2013 labels are noisy, and FER+ labels predict only 62.8 % of them, so the two heads disagree by design.
- Faces are 48x48 grey crops, close and nearly frontal. Masks, dark pictures, profiles and other crops were not measured."""

MISUSE = """## What it must not be used for

Decisions about people: hiring, schooling, policing, border control, insurance, credit, medical or psychological diagnosis, lie
detection, or watching workers, pupils or passers-by. The European Union's AI Act forbids inferring emotions at workplaces and in
schools (Regulation (EU) 2024/1689, Article 5(1)(f)). Nor to identify people: it was not trained to, and was not tested for it."""

PRIVACY = """## Privacy

**Trained without differential privacy, on public pictures.** The model may reveal faces that it was trained on. A federated
run that starts from it makes its promise for the devices' faces alone."""


def model_card(result: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """The card, in Markdown, of a training's result and history as `models.pretraining.trainer` writes them."""
    recipe = result["recipe"]
    passes = result["images"] / result["splits"]["Training"]["faces"]
    parts = [
        "# Model card: the base model",
        f"{recipe['variant']} with GroupNorm, stem stride {recipe['stem_stride']}, {result['parameters']:,} parameters, and two "
        "heads on one trunk. Input: one grey 48x48 crop of a face. Output: logits of FER+'s eight emotions and of FER2013's "
        "seven. It is meant as the beginning of federated training on people's own devices, and for the webcam loop.",
        DATA,
        f"Seen: {result['images']:,} faces, each pass and each warp counted ({passes:.1f} passes), in "
        f"{result['seconds'] / 3600:.1f} hours of training; the learning rate fell over the last {result['decay_images']:,}. "
        "Recipe: `models/pretraining/recipe.toml`.",
        _rows_table(result),
        _copies(result),
        PROTOCOL,
        "## Measured",
        _overview(result),
        *(_per_class(result, head) for head in TITLES),
        _curve(history),
        _biases(result),
        MISUSE,
        PRIVACY,
        _reproduce(recipe),
    ]
    return "\n\n".join(parts) + "\n"


def _reproduce(recipe: dict[str, Any]) -> str:
    command = f"fl-sim pretrain --data fer2013.csv --out base --images {recipe['images']}"
    said = (
        "This page is generated from the training's own `result.json`. A training that was lengthened or shortened on its way "
        "lets its rate fall elsewhere, and so ends with slightly other weights than that command's: see docs/pretraining.md."
    )
    return f"## Reproduce\n\n```\n{command}\n```\n\n{said}"


def _rows_table(result: dict[str, Any]) -> str:
    lines = ["| split | faces | with a FER+ target |", "| --- | --- | --- |"]
    lines += [f"| {name} | {row['faces']:,} | {row['with_ferplus_target']:,} |" for name, row in result["splits"].items()]
    return "\n".join(lines)


def _copies(result: dict[str, Any]) -> str:
    return COPIES.format(**{key: result["unseen"][key]["copies"] for key in SPLITS})


def _overview(result: dict[str, Any]) -> str:
    lines = [
        "| labels | split | faces | accuracy | balanced accuracy | mean confidence | calibration error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for head, title in TITLES.items():
        for key, split in SPLITS.items():
            lines.append(_overview_row(title, split, result[key][head]))
            if head in result["unseen"][key]:
                lines.append(_overview_row(title, f"{split} without copies", result["unseen"][key][head]))
    return "\n".join(lines)


def _overview_row(title: str, split: str, found: dict[str, Any]) -> str:
    return (
        f"| {title} | {split} | {found['examples']:,} | {found['accuracy']:.1%} | {found['balanced_accuracy']:.1%} | "
        f"{found['confidence']:.1%} | {found['calibration_error']:.3f} |"
    )


def _per_class(result: dict[str, Any], head: str) -> str:
    found = result["test"][head]
    lines = [f"{TITLES[head]}, PrivateTest, by class:", "", "| class | faces | recall | precision |", "| --- | --- | --- | --- |"]
    for i, name in enumerate(found["classes"]):
        faces, said = sum(found["confusion"][i]), sum(row[i] for row in found["confusion"])
        precision = f"{found['confusion'][i][i] / said:.1%}" if said else "never said"
        recall = f"{found['recalls'][name]:.1%}" if faces else "no face"
        lines.append(f"| {name} | {faces:,} | {recall} | {precision} |")
    return "\n".join(lines)


def _curve(history: list[dict[str, Any]]) -> str:
    every = -(-len(history) // CURVE_ROWS) or 1
    lines = [
        "On the way, on PublicTest (moving average of the weights; accuracy and balanced accuracy):",
        "",
        "| faces seen | learning rate | FER+ M8 | balanced | FER2013 | balanced |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for record in history[::-1][::every][::-1]:
        cells = [
            f"{record['validation'][head][name]:.1%}" for head in (FERPLUS, FER2013) for name in ("accuracy", "balanced_accuracy")
        ]
        lines.append(f"| {record['images']:,} | {record['learning_rate']:.2g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _biases(result: dict[str, Any]) -> str:
    counts = result["splits"]["Training"]["ferplus_counts"]
    rare = sorted(counts, key=lambda name: int(counts[name]))[:2]
    recalls = {name: value for name, value in result["test"][FERPLUS]["recalls"].items() if value is not None}
    worst = sorted(recalls, key=lambda name: float(recalls[name]))[:2]
    return BIASES.format(
        rare=" and ".join(rare).capitalize(),
        counts=", ".join(f"{counts[name]:,} faces" for name in rare),
        worst=" and ".join(worst),
        recalls=" and ".join(f"{recalls[name]:.0%}" for name in worst),
    )
