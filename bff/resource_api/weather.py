"""The weather, made up: the same day always gets the same, on every machine. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

DEFAULT_DAYS = 5
MAX_DAYS = 14

STATION = {
    "id": "DEMO-0001",
    "name": "Windmill Hill",
    "region": "Lowlands",
    "latitude": 52.52,
    "longitude": 13.41,
    "elevationMetres": 34,
}

# The least temperature of each word, the warmest first.
_SUMMARIES = (
    (30, "Sweltering"),
    (25, "Hot"),
    (20, "Warm"),
    (15, "Mild"),
    (10, "Cool"),
    (3, "Chilly"),
    (-3, "Bracing"),
)
_COLDEST = "Freezing"


@dataclass(frozen=True, slots=True)
class Day:
    """One day's weather."""

    date: date
    temperature: int
    """Degrees Celsius."""
    humidity: int
    """Percent."""
    wind: int
    """Kilometres an hour."""

    @property
    def summary(self) -> str:
        """One word for the temperature."""
        return next(
            (word for least, word in _SUMMARIES if self.temperature >= least),
            _COLDEST,
        )

    def brief(self) -> dict[str, Any]:
        """As everybody with the scope sees it."""
        return {
            "date": self.date.isoformat(),
            "temperatureC": self.temperature,
            "summary": self.summary,
        }

    def full(self) -> dict[str, Any]:
        """As the administrators see it."""
        return {**self.brief(), "humidityPercent": self.humidity, "windKmh": self.wind}


def forecast(today: date, days: int) -> list[Day]:
    """The weather of the `days` days that follow `today`."""
    return [_weather_of(today + timedelta(days=ahead)) for ahead in range(1, days + 1)]


def _weather_of(day: date) -> Day:
    """A season from the calendar, a whim from a hash of the date."""
    whim = sha256(day.isoformat().encode()).digest()
    season = -math.cos(2 * math.pi * (day.timetuple().tm_yday - 20) / 365.25)
    return Day(
        date=day,
        temperature=round(11 + 12 * season) + whim[0] % 15 - 7,
        humidity=40 + whim[1] % 56,
        wind=whim[2] % 60,
    )
