"""Phases as levels or straight drifts, so that a slow decline is one phase and not a staircase.

T: checkpoints; D: metrics.
"""

from itertools import pairwise

import numpy as np

Breaks = tuple[int, ...]


class Segments:
    """Least squares over any segment of checkpoints, from running sums."""

    def __init__(self, position: np.ndarray, values_TD: np.ndarray, penalty: float, shortest: int) -> None:
        """Takes places (T,), z-scored values (T, D), and what a break, or a drift, has to save."""
        self.points, self.penalty, self.shortest = len(position), penalty, shortest
        place = position - position.mean()
        columns = [place, place**2, *values_TD.T, (values_TD**2).sum(axis=1), *(place[:, None] * values_TD).T]
        self._sums = np.vstack([np.zeros(len(columns)), np.cumsum(np.column_stack(columns), axis=0)])
        self._metrics = values_TD.shape[1]
        self._place, self._values = place, values_TD
        self._known: dict[tuple[int, int], tuple[float, float]] = {}

    def cost(self, low: int, high: int) -> float:
        """What the better of a level and a straight drift costs in [low, high): squares, penalty."""
        return self._fit(low, high)[0]

    def residual(self, breaks: Breaks) -> float:
        """Squares left by all segments, without penalties."""
        return sum(self._fit(low, high)[1] for low, high in pairwise((0, *breaks, self.points)))

    def fitted(self, breaks: Breaks) -> np.ndarray:
        """The levels and drifts between ``breaks``, (T, D)."""
        curve = np.empty_like(self._values)
        for low, high in pairwise((0, *breaks, self.points)):
            part, place = self._values[low:high], self._place[low:high, None]
            curve[low:high] = part.mean(axis=0)
            if self._drifts(low, high):
                along = place - place.mean()
                curve[low:high] += along * (along * part).sum(axis=0) / (along**2).sum()
        return curve

    def parameters(self, breaks: Breaks) -> int:
        """How many numbers the phases take from each metric: a level each, some a drift, and the places."""
        spans = list(pairwise((0, *breaks, self.points)))
        return len(spans) + sum(self._drifts(*span) for span in spans) + len(breaks)

    def _drifts(self, low: int, high: int) -> bool:
        cost, left = self._fit(low, high)
        return cost > left

    def _fit(self, low: int, high: int) -> tuple[float, float]:
        known = self._known.get((low, high))
        if known is None:
            known = self._known[low, high] = self._fitted(low, high)
        return known

    def _fitted(self, low: int, high: int) -> tuple[float, float]:
        total = self._sums[high] - self._sums[low]
        number, metrics = high - low, self._metrics
        level_sums = total[2 : 2 + metrics]
        level = float(total[2 + metrics] - (level_sums @ level_sums) / number)
        if number <= self.shortest:
            return level, level
        across = total[3 + metrics :] - total[0] * level_sums / number
        width = float(total[1] - total[0] ** 2 / number)
        drift = level - float(across @ across) / width
        return min((level, level), (drift + self.penalty, drift))

    def merged(self, breaks: Breaks) -> Breaks:
        """Takes breaks away, the least needed first, as long as the total cost falls."""
        while breaks:
            edges = (0, *breaks, self.points)
            saved = [
                self.cost(a, b) + self.cost(b, c) + self.penalty - self.cost(a, c)
                for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)
            ]
            if max(saved) <= 0:
                break
            gone = int(np.argmax(saved))
            breaks = breaks[:gone] + breaks[gone + 1 :]
        return breaks

    def moved(self, breaks: Breaks) -> Breaks:
        """Moves each break to its cheapest place between its neighbours, once in order."""
        places = list(breaks)
        for number in range(len(places)):
            low = places[number - 1] if number else 0
            high = places[number + 1] if number + 1 < len(places) else self.points
            options = range(low + self.shortest, high - self.shortest + 1)
            places[number] = min(options, key=lambda at, a=low, c=high: self.cost(a, at) + self.cost(at, c))
        return tuple(places)
