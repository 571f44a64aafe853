"""Progress bars on stderr."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm


def progress_bar(what: str, total: int, unit: str) -> tqdm:
    """Returns a bar on stderr with an estimate of the time left; silent without work."""
    slow = 0.5 if sys.stderr.isatty() else 15.0
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}s",
        mininterval=slow,
        disable=total == 0,
        smoothing=0.1,
    )


def show_compilation(bar: tqdm) -> Callable[[int, int], None]:
    """Returns a function that shows on a bar how many programs are compiled, and of how many; it is
    called until all are. The bar's clock, and so its estimate, stands still meanwhile."""
    begun = shown = 0.0

    def show(done: int, total: int) -> None:
        nonlocal begun, shown
        now = time.time()
        begun = begun or now
        if done < total:
            if not bar.disable and now - max(shown, begun) >= bar.mininterval:
                shown = now
                bar.set_postfix_str(f"compiling, {done} of {total} programs, {now - begun:.0f} s")
            return
        if not bar.disable:
            bar.start_t += now - begun
            bar.last_print_t += now - begun
            bar.set_postfix_str("", refresh=False)
        begun = shown = 0.0

    return show
