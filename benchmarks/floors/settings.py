"""The settings of the service, for what it is measured against."""

workers = 2
threads = 4
worker_class = "gthread"
preload_app = True
keepalive = 75
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
