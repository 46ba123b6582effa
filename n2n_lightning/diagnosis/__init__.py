"""Measure what matters for Noise2Noise in noisy frames: levels, shift, copies, noise, correlation, values."""

from n2n_lightning.diagnosis.examine import Findings, SceneMeasures, examine
from n2n_lightning.diagnosis.finding import Finding
from n2n_lightning.diagnosis.judge import judge
from n2n_lightning.diagnosis.sample import FrameReader, scene_of_array

__all__ = ["Finding", "Findings", "FrameReader", "SceneMeasures", "examine", "judge", "scene_of_array"]
