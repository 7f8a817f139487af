"""Settings: read once from the environment, secret files and a TOML file, then frozen."""

from bff.settings.kinds import IPNetwork
from bff.settings.model import Settings
from bff.settings.redis_url import RedisAddress, parse_redis_url
from bff.settings.routes import METHODS, WEATHER, RouteSettings, never_back
from bff.settings.sources import SettingsError, load

__all__ = [
    "METHODS",
    "WEATHER",
    "IPNetwork",
    "RedisAddress",
    "RouteSettings",
    "Settings",
    "SettingsError",
    "load",
    "never_back",
    "parse_redis_url",
]
