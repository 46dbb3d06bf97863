"""Detection on a data set: threshold, scores, ranking, files and figures."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxvae.evaluation.anomaly.config import DetectorConfig
from flaxvae.evaluation.anomaly.detector import Detector, fit_detector
from flaxvae.evaluation.anomaly.examples import (
    Examples,
    group_contributions,
    score_table,
)
from flaxvae.evaluation.anomaly.ranking import Ranking, curves, rank
from flaxvae.files import write_json, write_table
from flaxvae.settings import describe_settings
from flaxvae.types import Json

CONTAMINATION = 0.1  # where nothing is stated, as in PyOD


@dataclass(frozen=True, eq=False)
class Detection:
    """A detector, and what it says about the data that it was fitted to and others.

    Attributes:
      name: of the data.
      examples: all that are scored.
      detector: fitted to the training examples.
      threshold: above which an example is called anomalous.
      table: one row per example, see `score_table`.
      ranking: of the test examples, or None without labels of both kinds.
    """

    name: str
    examples: Examples
    detector: Detector
    threshold: float
    table: dict[str, np.ndarray]
    ranking: Ranking | None

    @property
    def summary(self) -> dict[str, Json]:
        """The numbers of the detection, as JSON."""
        examples, flagged = self.examples, self.table["is_anomaly"]
        found: dict[str, Json] = {
            "dataset": self.name,
            "num_training": int(examples.is_training.sum()),
            "num_scored": len(flagged),
            "threshold": self.threshold,
            "num_flagged": int(flagged.sum()),
            "detector": describe_settings(self.detector.config),
        }
        if self.ranking is not None:
            found["ranking"] = dataclasses.asdict(self.ranking)
            found["ranked_on"] = examples.ranked_on
        return found

    def write(
        self, folder: Path, *, output: Path | None = None, figures: bool = True
    ) -> list[Path]:
        """Writes scores, detector, summary and figures, each file atomically.

        Args:
          folder: for ``detector.npz``, ``summary.json`` and ``figures/``.
          output: the table of scores, .csv or .parquet; default ``scores.csv`` there.
          figures: whether to draw.

        Returns:
          The files.
        """
        output = output or folder / "scores.csv"
        for place in (folder, output.parent):
            place.mkdir(parents=True, exist_ok=True)
        files = [output, folder / "detector.npz", folder / "summary.json"]
        write_table(output, self.table)
        self.detector.save(files[1])
        write_json(files[2], self.summary)
        return [*files, *(self.draw(folder / "figures") if figures else ())]

    def draw(self, folder: Path) -> list[Path]:
        """Draws histograms of the scores, both curves, and contributions."""
        from flaxvae.latent.figures import anomalies, save_figure

        examples, scores = self.examples, self.table["score"]
        test, labels = examples.is_test, examples.labels
        where = "" if test.all() else ", held out of the training"
        title = f"{self.name}: {{}} of {test.sum():,} examples{where}"
        of_test = None if labels is None else labels[test]
        drawn = {
            "scores": anomalies.plot_score_histograms(
                scores[test],
                of_test,
                self.threshold,
                title=title.format("scores"),
            )
        }
        if self.ranking is not None and of_test is not None:
            found = curves(scores[test], of_test)
            flagged = scores[test] > self.threshold
            hits = flagged[of_test == 1].mean()
            alarms = flagged[of_test == 0].mean()
            precision = of_test[flagged].mean() if flagged.any() else 1.0
            drawn["ranking"] = anomalies.plot_ranking(
                *found,
                title=title.format("ranking"),
                share=float(of_test.mean()),
                texts=(
                    _describe("AUROC", self.ranking.auroc, self.ranking.auroc_interval),
                    _describe(
                        "average precision",
                        self.ranking.average_precision,
                        self.ranking.average_precision_interval,
                    ),
                ),
                operating_point=(float(alarms), float(hits), float(precision)),
            )
        most = anomalies.MOST_ROWS if examples.groups else anomalies.MOST_IMAGES
        order = np.argsort(-scores, kind="stable")[:most]
        top = examples[order]
        title = f"{self.name}: what makes the {len(order)} highest scores"
        names = [_name(self.table, i) for i in order]
        if examples.groups:
            drawn["contributions"] = anomalies.plot_contributions(
                group_contributions(self.detector, top),
                list(examples.groups),
                names,
                title=title,
            )
        else:
            drawn["contributions"] = anomalies.plot_image_contributions(
                top.x, self.detector.contributions(top.x), names, title=title
            )
        files = [folder / f"{name}.png" for name in drawn]
        for file, figure in zip(files, drawn.values(), strict=True):
            save_figure(figure, file)
        return files


def detect(
    name: str,
    examples: Examples,
    *,
    contamination: float | None = None,
    false_alarm_rate: float | None = None,
    seed: int = 0,
    config: DetectorConfig | None = None,
) -> Detection:
    """Fits a detector to the training examples, and scores all.

    Args:
      name: of the data, for titles.
      examples: as `read_examples` returns them.
      contamination: see `Detector.threshold`; 0.1 where neither is stated.
      false_alarm_rate: likewise.
      seed: of the detector, and of the bootstrap of the ranking.
      config: of the detector.

    Raises:
      InputError: as `fit_detector` and `Detector.threshold`.
    """
    if contamination is None and false_alarm_rate is None:
        contamination = CONTAMINATION
    fitted = examples.x[examples.is_training]
    detector = fit_detector(fitted, seed=seed, config=config)
    threshold = detector.threshold(
        contamination=contamination, false_alarm_rate=false_alarm_rate
    )
    table = score_table(detector, examples, threshold)
    ranking, test = None, examples.is_test
    if examples.labels is not None and len(np.unique(examples.labels[test])) == 2:
        ranking = rank(table["score"][test], examples.labels[test], seed=seed)
    return Detection(name, examples, detector, threshold, table, ranking)


def _describe(name: str, area: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{name} {area:.3f} (95 %: {low:.3f} to {high:.3f})"


def _name(table: dict[str, np.ndarray], i: int) -> str:
    """An example in a figure: where it is in the data, and its score."""
    where = f"{table['file'][i]}" if "file" in table else f"{table['index'][i]}"
    return f"{where}: {table['score'][i]:#.3g}"
