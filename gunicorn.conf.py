"""How Gunicorn runs the service. The work behind the hooks is in wine_api/worker.py, where tests can call it."""

import gc

gc.disable()  # what is imported stays: looking through it for garbage takes a tenth of the start; on_starting ends it

from wine_api import native_threads  # noqa: E402

native_threads.limit()  # before anything imports NumPy

from wine_api import worker  # noqa: E402

settings = worker.read_settings()

bind = f"{settings.host}:{settings.port}"
workers = settings.web_concurrency
threads = settings.web_threads
worker_class = "wine_api.worker.Worker"
logger_class = "wine_api.observability.logs.GunicornLogger"
loglevel = settings.log_level.lower()

preload_app = not settings.web_reload  # imports once, and shares what is imported; models are loaded after the fork
reload = settings.web_reload

keepalive = 75  # seconds; longer than an ingress keeps its idle connections, so that it is never the one cut off
timeout = 60  # seconds that a worker may be silent before it is replaced
graceful_timeout = 25  # seconds for requests under way, after DRAIN_SECONDS; deploy/ allows for both
worker_tmp_dir = "/dev/shm"  # noqa: S108  # nosec B108  # the heartbeat must not wait for a disk
control_socket_disable = True  # it would let anyone on this host reload and stop the service
forwarded_allow_ips = ",".join(str(network) for network in settings.trusted_proxies)
secure_scheme_headers = {}  # X-Forwarded-Proto is the contract, and ours to read; by default others would count as well
forwarder_headers = ""  # SCRIPT_NAME and PATH_INFO are nobody's to send; X-Forwarded-Prefix is the contract


def on_starting(server):  # noqa: D103
    worker.on_starting(server)


def when_ready(server):  # noqa: D103
    worker.when_ready(server)


def post_fork(server, forked):  # noqa: D103
    worker.post_fork(server, forked)


def child_exit(server, exited):  # noqa: D103
    worker.child_exit(server)
