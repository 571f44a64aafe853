"""A table: the scikit-learn estimator, p-values, and a false-alarm rate that was asked for.

python examples/02_table.py
"""

import numpy as np

import deepsvdd_jax as svdd

random = np.random.RandomState(0)
mixing = random.randn(3, 8)
normal = random.randn(600, 3) @ mixing + 0.1 * random.randn(600, 8)
broken = random.randn(20, 8) * normal.std(axis=0)  # the same spread, without what ties columns

detector = svdd.DeepSVDD(false_alarm_rate=0.05, random_state=0).fit(normal[:500])
alarms = detector.predict(normal[500:]) == -1
found = detector.predict(broken) == -1
print(f"false alarms {alarms.mean():.2f} (asked for 0.05), found {found.mean():.2f}")
print("p-values of broken rows:", np.round(np.sort(detector.p_values(broken))[:5], 3))
