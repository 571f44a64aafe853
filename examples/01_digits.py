"""Ten seeds of Deep SVDD on one digit, trained as one program, alone and together.

python examples/01_digits.py
"""

import jax
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import deepsvdd_jax as svdd

NORMAL = 3

images, digits = load_digits(return_X_y=True)
images = (images / 16.0).reshape(-1, 8, 8, 1).astype(np.float32)
normal = digits == NORMAL
train, test = images[normal][:100], np.concatenate([images[normal][100:], images[~normal]])
is_anomaly = np.arange(len(test)) >= len(images[normal]) - 100

config = svdd.preset("auto", "digits", images.shape[1:])
keys = jax.random.split(jax.random.key(0), 10)
outcome, _ = svdd.train_runs(keys, config, train, test)

distances = np.asarray(outcome.test_distances)  # squared, [seeds, images]; higher = more anomalous
units = np.asarray(outcome.train_distances).mean(axis=1, keepdims=True)
alone = [roc_auc_score(is_anomaly, one) for one in distances]
together = roc_auc_score(is_anomaly, (distances / units).mean(axis=0))
print(f"AUROC of one network {np.mean(alone):.4f} ± {np.std(alone):.4f}, together {together:.4f}")
