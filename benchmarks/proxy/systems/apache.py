"""Apache with mod_auth_openidc: sessions in Redis, encrypted there or not."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.proxy.programs import CannotMeasure
from benchmarks.proxy.signing_in import cookies_for, sign_in
from benchmarks.proxy.systems.system import Kind, System
from benchmarks.proxy.world import CLIENT_ID, CLIENT_SECRET, SCOPE, Provider, World, require

MODULES = Path("/usr/lib/apache2/modules")
HINT = "apt install apache2 libapache2-mod-auth-openidc"
# what else Debian loads would cost a little more
LOADED = ("mpm_event", "authn_core", "authz_core", "authz_user", "proxy", "proxy_http", "auth_openidc")
CALLBACK = "/callback"
CONFIG = """
ServerRoot {directory}
DefaultRuntimeDir {directory}
PidFile {key}.pid
ErrorLog {key}.error.log
LogLevel warn
ServerName localhost
Listen 127.0.0.1:{port}
{modules}
{user}
# two processes that have room for every client of the benchmark from the beginning: while Apache starts
# more of them, it drops connections
StartServers 2
ServerLimit 4
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 512
MaxSpareThreads 512
KeepAliveTimeout 60
MaxKeepAliveRequests 0
OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
OIDCClientID {client_id}
OIDCClientSecret {client_secret}
OIDCRedirectURI http://localhost:{port}{callback}
OIDCCryptoPassphrase as-long-as-this-run-and-no-longer
OIDCScope "{scope}"
OIDCPKCEMethod S256
OIDCSessionType server-cache
OIDCSessionInactivityTimeout 3600
OIDCCacheType redis
OIDCRedisCacheServer 127.0.0.1:{redis}
OIDCCacheEncrypt {encrypt}
<Location />
  AuthType openid-connect
  Require valid-user
</Location>
ProxyPass /weather http://127.0.0.1:{fast}/weather
ProxyPass /slow http://127.0.0.1:{slow}/slow
"""


def _kind(key: str, title: str, encrypt: str) -> Kind:
    def start(world: World, provider: Provider, port: int) -> System:
        apache = require("apache2", HINT)
        if not (MODULES / "mod_auth_openidc.so").exists():
            raise CannotMeasure(f"Apache's mod_auth_openidc is missing: {HINT}")
        config = CONFIG.format(
            directory=world.directory,
            key=key,
            port=port,
            modules="\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in LOADED),
            user="User www-data\nGroup www-data" if os.geteuid() == 0 else "",
            issuer=provider.issuer,
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            callback=CALLBACK,
            scope=SCOPE,
            redis=world.redis.port,
            encrypt=encrypt,
            fast=world.upstream.port,
            slow=world.slow.port,
        )
        file = world.directory / f"{key}.conf"
        file.write_text(config)
        program = world.start(key, [apache, "-D", "FOREGROUND", "-f", str(file)], port)
        page = f"http://localhost:{port}/weather"
        cookie = cookies_for(sign_in(page, title), page)
        return System(key, title, program, (f"Host: localhost:{port}", f"Cookie: {cookie}"))

    return Kind(key, title, CALLBACK, start)


KINDS = (
    _kind("apache", "Apache mod_auth_openidc, sessions encrypted", "On"),
    _kind("apache-plain", "Apache mod_auth_openidc, not encrypted", "Off"),
)
